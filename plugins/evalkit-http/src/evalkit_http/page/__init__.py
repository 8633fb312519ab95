"""The small page at / of the evaluation service: plain files that read the service's own routes."""
