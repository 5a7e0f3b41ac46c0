# Types of packet.py for the compiled engine. Other compiled modules may cimport PacketParser.
#
# The numbers that `encode_packet` takes may be too large for a packet, so they stay Python's.

cimport cython

cdef object _pack_header
cdef object _pack_crc
cdef object _unpack
cdef object _crc32
cdef Py_ssize_t _HEADER_BYTES, _CRC_BYTES
cdef int _LAST_KIND

cpdef bytes encode_packet(bytes cookie, object sender, object receiver, object number, object kind, object payload)

@cython.final
@cython.auto_pickle(False)
cdef class PacketParser:
    cdef bytes _cookie
    cdef Py_ssize_t _max_packet_bytes
    cdef Py_ssize_t _at
    cdef bint _in_skip
    cdef readonly Py_ssize_t skips
    cdef readonly Py_ssize_t skipped_bytes
    cdef readonly unsigned long sender
    cdef readonly unsigned long receiver
    cdef readonly unsigned long long number
    cdef readonly int kind
    cdef readonly bytes data
    cdef readonly Py_ssize_t start
    cdef readonly Py_ssize_t stop

    cpdef void feed(self, bytes chunk) except *
    @cython.locals(data=bytes, end=Py_ssize_t, at=Py_ssize_t, length=Py_ssize_t, kind=int, is_ours=bint, start=Py_ssize_t, stop=Py_ssize_t)
    cpdef bint find(self, bint drained) except -1
    @cython.locals(found=Py_ssize_t)
    cdef void _skip(self) except *
    cdef void _count_skip(self, Py_ssize_t size_bytes) except *
