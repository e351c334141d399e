"""Server: the life of a real server that a test starts and hurts; which one, and how it is started, is the subclass's."""

import signal
import subprocess

from support.kavachd import PATIENCE_S


class Server:
    """Of a dataclass with `process`; start() returns self when it answers."""

    process: subprocess.Popen | None
    # How it is told to stop.
    STOP = signal.SIGTERM

    def kill(self) -> None:
        """kill -9, paused or not."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self) -> None:
        """It closes what it has open, and says so to its clients."""
        self.process.send_signal(self.STOP)
        self.process.wait(timeout=PATIENCE_S)
        self.process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def send_signal(self, number: int) -> None:
        """To all of it."""
        self.process.send_signal(number)

    def pause(self) -> None:
        """It takes connections and bytes, as far as the kernel does that for it, and answers nothing."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        if self.process is not None:
            self.kill()
        self.free_ports()

    def free_ports(self) -> None:
        raise NotImplementedError
