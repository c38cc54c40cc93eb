"""Small services for one model, each as its framework's own guide writes it. The bench runs them as processes."""

FOLDER = "KANARIA_BENCH_MODEL"  # environment variable: folder of the model's files
IMPLEMENTATION = "KANARIA_BENCH_IMPLEMENTATION"  # the class that loads them, as `package.module:Class`
