"""Small services for one model, each written as its framework's own guide shows it. They run as processes."""

FOLDER = "KANARIA_BENCHMARK_MODEL"  # environment variable: folder of the model's files
IMPLEMENTATION = "KANARIA_BENCHMARK_IMPLEMENTATION"  # the class that loads them, as `package.module:Class`
