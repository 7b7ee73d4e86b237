"""What happens to each request, in the part of Python that numba compiles: arrays of int64, and functions on them.

    requests   the requests of one model, and the steps of each: come due, be sent, finish, leave a row
    device     lanes whose work is enqueued and asked about by plain C functions, and `spin`, which drives them;
               `spin_all` drives those of several models
    routing    the requests of one load that workers route among them as they come due
    compiled   `spin` as machine code, where numba is installed; else Python runs the same lines

lanes/scheduler.py drives other engines with the same steps.
"""
