"""The Flower ``ClientApp``: every message goes to the worker that this process keeps.

Neither torch nor transformers is imported here: Flower imports this module in places that only look.
"""

from __future__ import annotations

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedft.client.site.folders import ClientFolders


def new_app(folders: ClientFolders | None = None) -> ClientApp:
    """Return the app of clients that keep their files in ``folders``; None for the user's."""
    app = ClientApp()

    @app.query()
    @app.train()
    @app.evaluate()
    def answer(message: Message, context: Context) -> Message:
        from fedft.client.worker.answer import answer

        return answer(message, context, folders)

    return app


app = new_app()
