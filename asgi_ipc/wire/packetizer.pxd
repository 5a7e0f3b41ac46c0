# Types of packetizer.py for the compiled engine. The numbers on the wire stay Python's (see packet.pxd).

cimport cython
from asgi_ipc.wire.run cimport Run

@cython.final
@cython.auto_pickle(False)
cdef class Packetizer:
    cdef readonly Run run
    cdef readonly object cargo
    cdef public object copied
    cdef public bint is_patient
    cdef public bint must_wait
    cdef object _arena
    cdef Py_ssize_t _capacity_bytes
    cdef object _encode
    cdef object _fragmented
    cdef Py_ssize_t _max_packet_bytes
    cdef object _number
    cdef readonly bytes _packet
    cdef object _receiver
    cdef Py_ssize_t _written_bytes

    cpdef object next_packet(self)
    cpdef object written(self)
    cpdef bytes lone_packet(self, bytes prefix, bytes body)
    cpdef int lone_written(self) except -1
    cdef bytes _cut(self)
