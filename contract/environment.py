"""The environment variables that configure a model's server."""

VERSION = "KANARIA_VERSION"  # the tag of the version that it serves
SEALED = "KANARIA_SEALED"  # the folder of private copies, verified before the server was started
ANSWERS_KEY = "KANARIA_ANSWERS_KEY"  # the key of the checksums in the answers table
ANSWERS_DIR = "KANARIA_ANSWERS_DIR"  # the folder of the answers table
PREDICTIONS_DIR = "KANARIA_PREDICTIONS_DIR"  # the folder of the prediction log
PREDICTION_LOG_MB = "KANARIA_PREDICTION_LOG_MB"  # megabytes of the prediction log that are kept; 0: no log
DEADLINE_S = "KANARIA_DEADLINE_S"  # longest wait of a request for the model, seconds
PORT_SECRET = "KANARIA_PORT_SECRET"  # noqa: S105 - its name. A version that is not a Bento may require this secret
COMPARISON_SCHEMA = "KANARIA_COMPARISON_SCHEMA"  # the schema's `answer` by which both versions are counted, as JSON
