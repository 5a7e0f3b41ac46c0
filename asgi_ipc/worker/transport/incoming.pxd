# Types of incoming.py for the compiled engine.

cimport cython
from asgi_ipc.worker.transport.reader cimport Reader
from asgi_ipc.worker.transport.sender cimport Sender

@cython.final
@cython.auto_pickle(False)
cdef class Incoming:
    cdef readonly object arenas
    cdef readonly object eof
    cdef readonly Reader _packets
    cdef readonly object _reader
    cdef Reader _own_packets
    cdef object _me
    cdef object _peers
    cdef Sender _sender
    cdef object _deliver
    cdef object _catch_up
    cdef object _reassembler
    cdef object _loopback
    cdef object _marks
    cdef dict _sources
    cdef Py_ssize_t _stale
    cdef long long _taken_bytes

    cpdef void _on_bytes(self, bytes chunk, bint drained) except *
    cpdef void settle(self) except *
