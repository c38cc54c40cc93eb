"""Makes traffic: open-loop Locust load tests whose scenarios are data and whose gates decide the exit code.

It depends on the HTTP contract of the service, not on any model, version or release. Importing this package does not
import Locust, whose gevent patches would affect the caller.
"""
