"""What is told of an instance, plan or trace that cannot be read."""

from csp_embed.network.files.schema import Form

SERVING = Form(
    "check the path; examples/serving_cluster.yaml is one that can be planned",
    "instances and plans are JSON or YAML in UTF-8",
    "docs/serving.md shows the form",
)
