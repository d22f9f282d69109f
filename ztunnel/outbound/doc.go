// Package outbound carries what a pod's applications dial (dataplane spec 2.2):
// it asks ztunnel/route where a captured connection goes, opens the tunnel or
// the plain connection, and relays.
//
// It owns the effects and their retries: an endpoint that cannot be reached is
// replaced by another before the first byte, one that answers 401 is not. What
// must pass a waypoint that is not ready, or a node proxy that is being started
// again, waits for it, within bounds. What cannot be carried is reset, so that
// the application knows. It refuses to decide, and to speak to a workload that
// the control plane has not named. ztunnel/podproxy calls it, once a pod.
package outbound
