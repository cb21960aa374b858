"""The worker process: imports one function app, runs its functions and answers HTTP.

Nothing here imports an SDK or anything else that an app's deployment package might not contain, except the HTTP server,
which `boot` loads privately from the host's own environment.
"""
