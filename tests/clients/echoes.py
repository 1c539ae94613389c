"""The provider of WebSockets for soak.py, as a process of its own: `echoes.py SANDBOX CERTIFICATE KEY`.

It asks the sandbox whether the token of a handshake is good, refuses some handshakes, and sends back what comes. A client asks
for an end of the provider's by the messages CLOSE and ABORT. Prints its ports, without and with TLS.
"""

import asyncio
import logging
import random
import ssl
import sys
import urllib.error
import urllib.request

import websockets.asyncio.server

CLOSE, ABORT, CLOSE_CODE = "close, please", "abort, please", 4000
REFUSED_SHARE = 0.02
PATIENCE_SECONDS = 10


def token_status(sandbox, credential):
    """The status of a request with this credential."""
    request = urllib.request.Request(f"{sandbox}/v1/models", headers={"authorization": credential})
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


async def talk(connection):
    async for message in connection:
        if message == CLOSE:
            await connection.close(CLOSE_CODE, "as you asked")
        elif message == ABORT:
            connection.transport.abort()
        else:
            await connection.send(message)


async def serve(sandbox, certificate, key):
    rng = random.Random(1)

    async def look(connection, request):
        if rng.random() < REFUSED_SHARE:
            return connection.respond(503, "Not now")
        status = await asyncio.to_thread(token_status, sandbox, request.headers.get("authorization", ""))
        return None if status == 200 else connection.respond(401, "The token is not valid")

    trusted = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trusted.load_cert_chain(certificate, key)
    # Pings of its own would end the silence of idle WebSockets.
    options = {"process_request": look, "max_size": None, "ping_interval": None, "compression": None}
    for context in (None, trusted):
        server = await websockets.asyncio.server.serve(talk, "127.0.0.1", 0, ssl=context, **options)
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
    await asyncio.Future()


if __name__ == "__main__":
    # Each broken connection would be logged with its traceback.
    logging.disable()
    asyncio.run(serve(*sys.argv[1:]))
