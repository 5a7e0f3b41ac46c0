# Types of steps.py for the compiled engine.

cimport cython
cimport asgi_ipc.fast as fast

cdef bint _has_eager_tasks
cdef object _weak_references
cdef dict _current_tasks

@cython.final
@cython.auto_pickle(False)
cdef class Steps:
    cdef object _loop
    cdef object _standby
    cdef object _task
    cdef str _name
    cdef Py_ssize_t _references
    cdef Py_ssize_t _weak_references

    cpdef object take(self, object coroutine, object context)
    cdef object _step(self, object task, object coroutine, object context)
    cdef object _replace(self)
    cdef bint _is_untouched(self) except -1
