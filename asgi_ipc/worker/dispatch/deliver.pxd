# Types of deliver.py for the compiled engine.

cimport cython
cimport asgi_ipc.fast as fast
from asgi_ipc.wire.batch cimport Batch
from asgi_ipc.worker.dispatch.backpressure cimport InFlight
from asgi_ipc.worker.dispatch.handler cimport Handler
from asgi_ipc.worker.dispatch.steps cimport Steps

cdef object _coroutine_type

@cython.final
@cython.auto_pickle(False)
cdef class Deliverer:
    cdef dict _handlers
    cdef Steps _steps
    cdef InFlight _in_flight
    cdef object _wait
    cdef object _go_on
    cdef public Py_ssize_t left
    cdef readonly long long received
    cdef public bint is_running
    cdef public bint is_watched

    cpdef void accept(self, object context, Batch batch) except *
    @cython.locals(before=Py_ssize_t)
    cpdef object deliver(self, object context, Batch batch, dict handlers)
    @cython.locals(handler=Handler)
    cdef object _start(self, object context, Batch batch, dict handlers)
