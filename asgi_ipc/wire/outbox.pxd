# Types of outbox.py for the compiled engine.

cimport cython
from asgi_ipc.wire.packetizer cimport Packetizer
from asgi_ipc.wire.run cimport Run

cdef Py_ssize_t _reserved_bytes

@cython.final
@cython.auto_pickle(False)
cdef class Budget:
    cdef public object arena
    cdef public Py_ssize_t limit_bytes
    cdef readonly Py_ssize_t used_bytes
    cdef readonly Py_ssize_t handed_bytes

@cython.final
@cython.auto_pickle(False)
cdef class Outbox:
    cdef readonly Packetizer packets
    cdef Run _run
    cdef Budget _budget
    cdef Py_ssize_t _limit_bytes
    cdef object _waiting
    cdef object _handed
    cdef readonly Py_ssize_t accepted
    cdef readonly Py_ssize_t messages
    cdef readonly Py_ssize_t backlog_bytes
    cdef readonly Py_ssize_t handed_bytes

    cpdef bint has_room_for(self, Py_ssize_t size_bytes, Py_ssize_t cost_bytes) except -1
    @cython.locals(after=Py_ssize_t, budget=Budget)
    cdef bint _fits(self, Py_ssize_t size_bytes, Py_ssize_t cost_bytes) except -1
    cpdef int append(self, bytes prefix, bytes body, Py_ssize_t size_bytes) except -1
