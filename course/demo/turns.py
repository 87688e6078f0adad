"""Several requests at once: one computes at a time, in the order of asking; and what stops a run."""

from __future__ import annotations

import threading


class Turns:
    """A lock that is handed on in the order in which it was asked for.

    Requests take it for one token each, so that two people who write at once get theirs alternately. More than one at
    a time would not be faster, since a product uses all cores; it would not be safe either: Numba's own pool of threads
    ends the process when two threads enter it, and the number of BLAS's threads is one for the whole process.

    >>> turns = Turns()
    >>> with turns:
    ...     pass
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next_ticket = 0
        self._served = 0

    def __enter__(self) -> None:
        with self._changed:
            ticket, self._next_ticket = self._next_ticket, self._next_ticket + 1
            self._changed.wait_for(lambda: ticket == self._served)

    def __exit__(self, *exc: object) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()

    def pass_on(self) -> None:
        """For whoever has the turn: lets those who wait compute first, then goes on."""
        self.__exit__()
        self.__enter__()


class Stops:
    """The switches of the runs that are going on, by the session (a browser's page) that started them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, list[threading.Event]] = {}

    def start(self, session: str) -> threading.Event:
        """A switch for a new run of this session, to be given back to `end`."""
        event = threading.Event()
        with self._lock:
            self._running.setdefault(session, []).append(event)
        return event

    def end(self, session: str, event: threading.Event) -> None:
        """The run with this switch is over."""
        with self._lock:
            events = self._running.get(session, [])
            if event in events:
                events.remove(event)
            if not events:
                self._running.pop(session, None)

    def stop(self, session: str) -> None:
        """Asks every run of this session to end before its next token; those of others go on."""
        with self._lock:
            for event in self._running.get(session, []):
                event.set()
