"""The REST faces: our own, AUTOMATIC1111's and OpenAI's."""
