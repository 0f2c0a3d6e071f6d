"""The pilot-job executors of Flow: high throughput and low latency, over ZeroMQ."""
