# Types of steps.py for the compiled engine.

cimport cython
cimport asgi_ipc.fast as fast

cdef bint _has_eager_tasks
cdef object _weak_references

@cython.final
@cython.auto_pickle(False)
cdef class Steps:
    cdef object _loop
    cdef object _standby
    cdef tuple _untouched

    cpdef object take(self, object coroutine, object context)
    cdef object _step(self, object task, object coroutine, object context)
    cdef tuple _traces(self, object standby)
