"""Make traffic: open-loop Locust load tests whose scenarios are data and whose gates decide the exit code.

It knows the HTTP contract of the service and nothing about any model, any version or any release.
Importing this package never imports Locust, whose gevent patches would leak into the caller.
"""
