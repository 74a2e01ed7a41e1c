"""A way to a server on which connections break just when the answer comes."""

import socket
import threading
from contextlib import suppress
from typing import Self


class Breaking:
    """Passes requests on to ``port``; the first ``failures`` answers are lost with their connections."""

    def __init__(self, port: int, failures: int) -> None:
        self._target = ("127.0.0.1", port)
        self._left = failures
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._accept)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(self._target) as server:
            threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
            while answer := server.recv(65_536):
                if self._left > 0:
                    self._left -= 1
                    self.lost += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(answer)

    @staticmethod
    def _forward(client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while part := client.recv(65_536):
                server.sendall(part)
            server.shutdown(socket.SHUT_WR)
