"""The paths, headers and media types that a model's server, the gateway and the controller use over HTTP."""

PREDICT_PATH = "/predict"
FEEDBACK_PATH = "/feedback"
LIVE_PATH = "/livez"
READY_PATH = "/readyz"
HEALTH_PATH = "/healthz"  # the same, for services without the model contract
METRICS_PATH = "/metrics"

ANSWER_TIMEOUT_S = 10.0  # after this the gateway itself answers the request, with 504

REQUEST_ID_HEADER = "x-request-id"  # from the caller, or made if it sends none; a mirrored copy has the same id
CALLER_HEADER = "x-kanaria-caller"  # the name of the caller's key; only the gateway sets it
LABELLER_HEADER = (
    "x-kanaria-labelled-by"  # at /feedback: the name of the key itself, which may label another caller's answers
)
OWN_CALLER = "default"  # the name of the owner's key
VERSION_HEADER = "x-kanaria-version"  # the tag that answered
OWN_REQUEST_HEADER = "x-kanaria-request"  # the gateway's own id of a request whose answers an observer compares
COPY_HEADER = "x-kanaria-copy"  # marks a copy in a step: it is compared, and not counted as a user's request
SECRET_HEADER = "x-kanaria-secret"  # noqa: S105 - its name. Versions' ports refuse requests without it
SHORTEST_JUDGE_TOKEN = 20  # characters of the token that a judge server requires
API_KEY_HEADER = "x-api-key"  # required by the gateway
DEADLINE_HEADER = "x-kanaria-deadline"  # the sender of a command waits until then, Unix seconds; a late one is refused

PROBLEM_JSON = "application/problem+json"  # an error as RFC 9457 defines it
