# Types of peer.py for the compiled engine.

cimport cython
from asgi_ipc.wire.outbox cimport Outbox

@cython.final
@cython.auto_pickle(False)
cdef class Peer:
    cdef readonly object worker
    cdef readonly Outbox outbox
    cdef readonly object context
    cdef public object writer
    cdef public bint dirty
    cdef public bint quiet
    cdef public long long wrote_in
    cdef public bint leaving
    cdef public Py_ssize_t lost
