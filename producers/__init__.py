"""What puts events on Kafka: publisher, importers, a seeded synthetic shop, redrive."""
