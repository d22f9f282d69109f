package mesh

// Model is the whole mesh as the control plane knows it: the output of
// translate and the input of snapshot. It is immutable once built.
type Model struct {
	Workloads map[string]*Workload // by UID
	Services  map[ServiceKey]*Service
	// Policies are those of ztunnels and, with ScopeTargets, of waypoints.
	Policies map[PolicyKey]*Policy
	// What follows is for waypoints only.
	Routes          map[RouteKey]*Route
	Traffic         map[ServiceKey]*Traffic
	Authentications map[PolicyKey]*Authentication
}
