"""linksim as a service: many users' images over one simulated link, in batches, on many processes.

It is what the GSC paper (section III-E, table I) calls asynchronous, parallel and cached.
"""
