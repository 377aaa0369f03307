"""What ``OPTIONS`` says: the methods of a path, all of them."""

from __future__ import annotations

from litestar import Litestar
from litestar.enums import HttpMethod, ScopeType
from litestar.routes import HTTPRoute
from litestar.types import ASGIApp, Message, Receive, Scope, Send


def with_options(app: Litestar) -> ASGIApp:
    """*app*, whose answers to OPTIONS name what each path takes now.

    Litestar makes that answer when the first handler of a path is registered, and keeps it when more are.
    """
    methods = {
        route.path_format: ", ".join(sorted(map(str, route.methods))).encode()
        for route in app.routes
        if isinstance(route, HTTPRoute)
    }

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_methods(message: Message) -> None:
            if message["type"] == "http.response.start":
                known = methods.get(scope.get("path_template", ""))
                if known is not None:
                    message["headers"] = [
                        (name, known if name == b"allow" else value) for name, value in message["headers"]
                    ]
            await send(message)

        asks = scope["type"] == ScopeType.HTTP and scope["method"] == HttpMethod.OPTIONS
        await app(scope, receive, send_with_methods if asks else send)

    return wrapped
