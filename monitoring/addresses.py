"""The default addresses of the controller, of the judge in deploy/kubernetes, and of their runbooks."""

CONTROLLER = "http://127.0.0.1:8090"
JUDGE = "http://kanaria-judge.kanaria.svc:8091"


def runbooks_at(controller: str) -> str:
    """The page of runbooks that the controller or the judge serves. An alert's anchor is its name in lower case."""
    return f"{controller}/runbooks"


RUNBOOKS = runbooks_at(CONTROLLER)
