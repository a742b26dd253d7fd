"""Jobs through the owner's own RabbitMQ, results through Redis: for the faces `queue` and `queue_front`."""
