# Types of packet.py for the compiled engine. A number of a packet takes all of 64 bits, so it stays Python's.

cimport cython

cdef object _pack_header
cdef object _pack_crc
cdef object _unpack
cdef object _crc32

cpdef bytes encode_packet(bytes cookie, object sender, object receiver, object number, object kind, object payload)

@cython.final
cdef class PacketParser:
    cdef bytes _cookie
    cdef Py_ssize_t _max_packet_bytes
    cdef bytes _rest
    cdef bint _in_skip
    cdef readonly Py_ssize_t skips
    cdef readonly Py_ssize_t skipped_bytes

    @cython.locals(end=Py_ssize_t, position=Py_ssize_t, length=Py_ssize_t, stop=Py_ssize_t)
    cdef Py_ssize_t _collect(self, bytes data, list packets, bint drained) except -1
    @cython.locals(found=Py_ssize_t)
    cdef Py_ssize_t _skip(self, bytes data, Py_ssize_t position) except -1
    cdef object _count_skip(self, Py_ssize_t size_bytes)
