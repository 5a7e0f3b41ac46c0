"""The recipes: tasks for which people add Redis, solved between the workers of one server.

Law: each file is one complete app to copy. No recipe imports another; only `cache` imports its database.
docs/recipes.md explains them:

    asgi-ipc serve demo.recipes.chat:app --workers 4"""
