root=$(in_home "$ROOT")
archives package
