"""The environment variables that configure a model's server."""

VERSION = "KANARIA_VERSION"  # the tag that it serves
SEALED = "KANARIA_SEALED"  # the folder of private copies that were verified before it was started
ANSWERS_KEY = "KANARIA_ANSWERS_KEY"  # what the checksums in that table are keyed with
ANSWERS_DIR = "KANARIA_ANSWERS_DIR"  # the folder of the answers table
PREDICTIONS_DIR = "KANARIA_PREDICTIONS_DIR"  # the folder of the prediction log
PREDICTION_LOG_MB = "KANARIA_PREDICTION_LOG_MB"  # megabytes of it that are kept; 0: no log
DEADLINE_S = "KANARIA_DEADLINE_S"  # longest wait of a request for the model, seconds
PORT_SECRET = "KANARIA_PORT_SECRET"  # noqa: S105 - its name. What a version that is no Bento may ask for
COMPARISON_SCHEMA = "KANARIA_COMPARISON_SCHEMA"  # the schema's `answer` that both versions are counted by, as JSON
