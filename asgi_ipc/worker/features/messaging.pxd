# Types of messaging.py for the compiled engine.

cimport cython
cimport asgi_ipc.fast as fast
from asgi_ipc.worker.transport.peer cimport Peer
from asgi_ipc.worker.transport.sender cimport Sender

cdef Py_ssize_t _before_last, _most_short

@cython.final
@cython.auto_pickle(False)
cdef class Messaging:
    cdef object _outgoing
    cdef Sender _sender
    cdef dict _by_pid
    cdef dict _by_generation
    cdef dict _fronts
    cdef unsigned long _thread
    cdef public object span

    @cython.locals(turn_messages=Py_ssize_t)
    cpdef object send(self, object to, object name, object data, object timeout)
    cpdef object send_nowait(self, object pid, object name, object data=*)
    @cython.locals(peer=Peer, front=bytes, prefix=bytes, body=bytes)
    cdef bint _send_short(self, object to, object name, object data) except -1
