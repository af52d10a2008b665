"""`serve run asr.cluster:app`, the name by which deployments know the service on Ray Serve."""

from asr.server.cluster import app as app
