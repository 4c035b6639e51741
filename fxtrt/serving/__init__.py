"""Answers requests of many clients with one model: queue, batches, workers, images and metrics."""
