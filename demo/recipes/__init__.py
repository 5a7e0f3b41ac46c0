"""The recipes: what people reach for Redis for, between the workers of one server.

Law: each file is one complete app, to be copied; none imports another, but the database that `cache` needs.
docs/recipes.md explains them:

    asgi-ipc serve demo.recipes.chat:app --workers 4"""
