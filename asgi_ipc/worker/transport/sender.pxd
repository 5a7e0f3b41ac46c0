# Types of sender.py for the compiled engine.

cimport cython
from asgi_ipc.wire.outbox cimport Budget, Outbox
from asgi_ipc.worker.transport.peer cimport Peer

cdef Py_ssize_t _eager_bytes, _quiet_messages, _bytes_as_one_message, _receivers_as_one_message

@cython.final
@cython.auto_pickle(False)
cdef class Sender:
    cdef object _loop
    cdef object _lock
    cdef Budget _budget
    cdef Py_ssize_t _short_bytes
    cdef list _dirty
    cdef bint _end_is_due
    cdef readonly long long turn
    cdef public Py_ssize_t turn_messages

    @cython.locals(size_bytes=Py_ssize_t)
    cpdef bint post(self, Peer peer, bytes prefix, bytes body) except -1
    @cython.locals(peer=Peer, size_bytes=Py_ssize_t, ahead_bytes=Py_ssize_t)
    cpdef bint post_to_all(self, tuple peers, bytes message) except -1
    cdef bint _has_room(self, Peer peer, Py_ssize_t size_bytes, Py_ssize_t ahead_bytes) except -1
    cdef bint _write_alone(self, Peer peer, bytes prefix, bytes body) except -1
    @cython.locals(is_quiet=bint)
    cpdef int accepted(self, Peer peer) except -1
    cpdef int touch(self, Peer peer) except -1
    cpdef int begin_turn(self) except -1
