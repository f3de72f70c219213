"""What all contenders of neural operators are measured by, whatever their library."""

import ctypes
import gc

from ._contender import AbstractContender


STEPS = 10


def trained(contender, losses):
    """The losses of the first and of the tenth step from the starting point."""
    contender.run(max(STEPS - len(losses), 0))
    return {"first_loss": losses[0], "loss": losses[STEPS - 1]}


class MeasuredMemory(AbstractContender):
    """Its peak is how much one more call or step adds to the memory of the process."""

    def peak_bytes(self):
        return resident_rise(lambda: self.run(1))


def resident_rise(action):
    """The high-water mark of the resident memory during `action`, less what was resident before;
    `None` where the system cannot tell (it takes Linux with its C library).

    To be called when all is timed: from then on, large blocks are asked for and given back one by
    one, since freed memory that the allocator keeps would hide what is taken from it again.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        for option in (_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD):
            libc.mallopt(option, 1 << 16)
        action()
        gc.collect()
        libc.malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as reset:
            reset.write("5")
        before = _resident("VmRSS")
        action()
        return max(_resident("VmHWM") - before, 0)
    except (OSError, AttributeError):
        return None


# Of malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def _resident(name):
    with open("/proc/self/status", encoding="ascii") as status:
        (found,) = [line for line in status if line.startswith(f"{name}:")]
    return 1024 * int(found.split()[1])
