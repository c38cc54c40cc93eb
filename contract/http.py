"""The paths, headers and media types that a model's server, the gateway and the controller use over HTTP."""

PREDICT_PATH = "/predict"
FEEDBACK_PATH = "/feedback"
LIVE_PATH = "/livez"
READY_PATH = "/readyz"
HEALTH_PATH = "/healthz"  # of services without the model contract: the same as the one before
METRICS_PATH = "/metrics"

ANSWER_TIMEOUT_S = 10.0  # after it the gateway itself answers a request: 504

REQUEST_ID_HEADER = "x-request-id"  # kept when the caller gives one, made when not; a mirrored copy has the same one
CALLER_HEADER = "x-kanaria-caller"  # the name of the key that the caller brought; the gateway sets it, nobody else
LABELLER_HEADER = (
    "x-kanaria-labelled-by"  # at /feedback: the name of the key itself, which may be for answers of another
)
OWN_CALLER = "default"  # the name of the owner's key
VERSION_HEADER = "x-kanaria-version"  # the tag that answered
OWN_REQUEST_HEADER = "x-kanaria-request"  # the gateway's own id of a request whose answers an observer compares
COPY_HEADER = "x-kanaria-copy"  # of a copy in a step: it is compared and counts as no request of a user
SECRET_HEADER = "x-kanaria-secret"  # noqa: S105 - its name. Versions' ports answer nobody without it
SHORTEST_JUDGE_TOKEN = 20  # letters of the token that questions to a judge server carry
API_KEY_HEADER = "x-api-key"  # required by the gateway
DEADLINE_HEADER = "x-kanaria-deadline"  # until when the sender of a command waits, Unix seconds; late ones are refused

PROBLEM_JSON = "application/problem+json"  # an error as RFC 9457 defines it
