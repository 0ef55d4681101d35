"""The engine that scores networks by proxies; the proxies themselves are in `zeroshot_nas.proxies`."""
