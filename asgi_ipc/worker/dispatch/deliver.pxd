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
    cdef Steps _steps
    cdef InFlight _in_flight
    cdef public Py_ssize_t left

    @cython.locals(handler=Handler)
    cpdef object deliver(self, Batch batch, object context, dict handlers)
