package translate

import (
	"math"
	"time"

	api "istio.io/api/networking/v1alpha3"

	"github.com/ambit-mesh/ambit/internal/mesh"
)

// field is a field that may be set.
type field struct {
	name string
	set  bool
}

// unused notes the fields of a message that are set and have no effect.
func (d *destination) unused(at, why string, fields ...field) {
	for _, f := range fields {
		if f.set {
			d.note("%s.%s has no effect: %s.", at, f.name, why)
		}
	}
}

func (d *destination) balancer(in *api.LoadBalancerSettings, at string) mesh.Balancer {
	out := mesh.Balancer{Warmup: in.GetWarmup().GetDuration().AsDuration()}
	if in.GetWarmup() == nil {
		out.Warmup = in.GetWarmupDurationSecs().AsDuration()
	}
	d.unused(at, "a new endpoint's share grows evenly from a tenth",
		field{"warmup.minimumPercent", in.GetWarmup().GetMinimumPercent() != nil && in.GetWarmup().GetMinimumPercent().GetValue() != 10},
		field{"warmup.aggression", in.GetWarmup().GetAggression() != nil && in.GetWarmup().GetAggression().GetValue() != 1})
	switch in.GetSimple() {
	case api.LoadBalancerSettings_ROUND_ROBIN:
		out.Kind = mesh.BalanceRoundRobin
	case api.LoadBalancerSettings_RANDOM:
		out.Kind = mesh.BalanceRandom
	case api.LoadBalancerSettings_PASSTHROUGH:
		out.Kind = mesh.BalanceOriginal
	case api.LoadBalancerSettings_UNSPECIFIED, api.LoadBalancerSettings_LEAST_REQUEST, api.LoadBalancerSettings_LEAST_CONN:
	default:
		d.note("%s.simple %s is not known here: the default is used.", at, in.GetSimple())
	}
	if h := in.GetConsistentHash(); h != nil {
		d.hash(&out, h, at+".consistentHash")
	}
	d.locality(&out, in.GetLocalityLbSetting(), at+".localityLbSetting")
	if in.GetZoneAwareLbSetting() != nil {
		d.note("%s.zoneAwareLbSetting has no effect: use localityLbSetting.", at)
	}
	return out
}

// hash takes the key. How the ring is made is the waypoint's own business.
func (d *destination) hash(out *mesh.Balancer, in *api.LoadBalancerSettings_ConsistentHashLB, at string) {
	out.Kind = mesh.BalanceHash
	switch key := in.GetHashKey().(type) {
	case *api.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
		out.Hash.Header = key.HttpHeaderName
	case *api.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
		out.Hash.Cookie, out.Hash.CookiePath = key.HttpCookie.GetName(), key.HttpCookie.GetPath()
		out.Hash.CookieTTL = key.HttpCookie.GetTtl().AsDuration()
		d.unused(at+".httpCookie", "a cookie has a name, a path and a ttl",
			field{"attributes", len(key.HttpCookie.GetAttributes()) > 0})
	case *api.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
		out.Hash.SourceIP = key.UseSourceIp
	case *api.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
		out.Hash.Query = key.HttpQueryParameterName
	}
	if out.Hash == (mesh.HashKey{}) {
		d.note("%s names no key: the default is used.", at)
		out.Kind = mesh.BalanceLeast
	}
	d.unused(at, "the waypoint has one hash ring, whose size follows the endpoints",
		field{"minimumRingSize", in.GetMinimumRingSize() > 0},
		field{"ringHash", in.GetRingHash().GetMinimumRingSize() > 0},
		field{"maglev", in.GetMaglev() != nil})
}

func (d *destination) locality(out *mesh.Balancer, in *api.LocalityLoadBalancerSetting, at string) {
	if in == nil {
		return
	}
	out.PreferLocal = in.GetEnabled() == nil || in.GetEnabled().GetValue()
	out.NoLocality = !out.PreferLocal
	for _, f := range in.GetFailover() {
		out.Failover = append(out.Failover, mesh.LocalityFailover{From: f.GetFrom(), To: f.GetTo()})
	}
	d.unused(at, "the nearest endpoints are preferred, by region, zone and subzone",
		field{"distribute", len(in.GetDistribute()) > 0},
		field{"failoverPriority", len(in.GetFailoverPriority()) > 0})
}

func (d *destination) connections(in *api.ConnectionPoolSettings, at string) mesh.Connections {
	tcp, http := in.GetTcp(), in.GetHttp()
	d.unused(at+".tcp", "tunnels between proxies find out by themselves whether the other end lives",
		field{"tcpKeepalive", tcp.GetTcpKeepalive() != nil})
	d.unused(at+".http", "the port's protocol decides what is spoken",
		field{"h2UpgradePolicy", http.GetH2UpgradePolicy() == api.ConnectionPoolSettings_HTTPSettings_UPGRADE},
		field{"useClientProtocol", http.GetUseClientProtocol()},
		field{"maxConcurrentStreams", http.GetMaxConcurrentStreams() > 0},
		field{"http2KeepAlive", http.GetHttp2KeepAlive() != nil})
	d.unused(at, "a connection is kept while it is used",
		field{"tcp.maxConnectionDuration", tcp.GetMaxConnectionDuration() != nil},
		field{"http.maxRequestsPerConnection other than 1", http.GetMaxRequestsPerConnection() > 1})
	out := mesh.Connections{
		MaxConnections: bound(tcp.GetMaxConnections()), ConnectTimeout: tcp.GetConnectTimeout().AsDuration(),
		MaxPending: bound(http.GetHttp1MaxPendingRequests()), MaxRequests: bound(http.GetHttp2MaxRequests()),
		MaxPerConnection: bound(http.GetMaxRequestsPerConnection()), MaxRetries: bound(http.GetMaxRetries()),
		IdleTimeout: http.GetIdleTimeout().AsDuration(),
	}
	if http.GetIdleTimeout() == nil {
		out.IdleTimeout = tcp.GetIdleTimeout().AsDuration()
	}
	return out
}

// bound is a limit; what is not positive is none.
func bound(n int32) int { return int(max(n, 0)) }

// The defaults of an outlierDetection that is given, as upstream.
const (
	outlierErrors   = 5
	outlierEjection = 30 * time.Second
	outlierPercent  = 10
)

// outlier converts a given outlierDetection with upstream's defaults for what
// it leaves out. A service without one has the waypoint's own.
func (d *destination) outlier(in *api.OutlierDetection, at string) mesh.Outlier {
	if in == nil {
		return mesh.Outlier{}
	}
	out := mesh.Outlier{
		Consecutive5xx:       threshold(in.GetConsecutive_5XxErrors() != nil, in.GetConsecutive_5XxErrors().GetValue(), outlierErrors),
		ConsecutiveGateway:   threshold(true, in.GetConsecutiveGatewayErrors().GetValue(), 0),
		ConsecutiveLocal:     -1,
		SplitLocalFromRemote: in.GetSplitExternalLocalOriginErrors(),
		Interval:             in.GetInterval().AsDuration(), BaseEjection: in.GetBaseEjectionTime().AsDuration(),
		MaxEjectionPercent: int(in.GetMaxEjectionPercent()), MinHealthPercent: int(in.GetMinHealthPercent()),
	}
	if out.SplitLocalFromRemote {
		out.ConsecutiveLocal = threshold(in.GetConsecutiveLocalOriginFailures() != nil, in.GetConsecutiveLocalOriginFailures().GetValue(), outlierErrors)
	}
	if out.BaseEjection == 0 {
		out.BaseEjection = outlierEjection
	}
	if out.MaxEjectionPercent == 0 {
		out.MaxEjectionPercent = outlierPercent
	}
	d.unused(at, "every status of 500 and more is an error",
		field{"outlierDetectionHttpErrorCodes", len(in.GetOutlierDetectionHttpErrorCodes()) > 0})
	d.unused(at, "use consecutive5xxErrors or consecutiveGatewayErrors",
		field{"consecutiveErrors", in.GetConsecutiveErrors() != 0})
	return out
}

// threshold is -1 for a rule that is off: in the model 0 is a default.
func threshold(given bool, n uint32, otherwise int) int {
	switch {
	case !given:
		return otherwise
	case n == 0:
		return -1
	}
	return int(min(n, math.MaxInt32))
}

// originate converts TLS towards what is outside of the mesh. Certificates are
// not read: what cannot be verified with the system's roots does not connect.
func (d *destination) originate(in *api.ClientTLSSettings, at string) mesh.OriginateTLS {
	if m := in.GetMode(); m != api.ClientTLSSettings_SIMPLE && m != api.ClientTLSSettings_MUTUAL {
		return mesh.OriginateTLS{} // in the mesh HBONE does that
	}
	if in.GetMode() == api.ClientTLSSettings_MUTUAL {
		d.note("%s.mode MUTUAL: client certificates are not supported. TLS is started without one, which such a server refuses.", at)
	}
	d.unused(at, "the server is verified with the system's roots, and refused if they do not know it",
		field{"caCertificates", in.GetCaCertificates() != "" && in.GetCaCertificates() != "system"},
		field{"credentialName", in.GetCredentialName() != ""},
		field{"caCrl", in.GetCaCrl() != ""})
	return mesh.OriginateTLS{
		On: true, SNI: in.GetSni(), SubjectAltNames: in.GetSubjectAltNames(),
		Insecure: in.GetInsecureSkipVerify().GetValue(),
	}
}

// retryBudget counts what is in flight, unless an interval is given.
func (d *destination) retryBudget(in *api.TrafficPolicy_RetryBudget) *mesh.RetryBudget {
	if in == nil {
		return nil
	}
	out := &mesh.RetryBudget{Percent: budgetPercent, Interval: in.GetBudgetInterval().AsDuration(), MinCount: 3}
	if p := in.GetPercent(); p != nil {
		out.Percent = int(math.Round(p.GetValue()))
		if float64(out.Percent) != p.GetValue() {
			d.note("trafficPolicy.retryBudget.percent %v is taken for %d.", p.GetValue(), out.Percent)
		}
	}
	if n := in.GetMinRetryConcurrency(); n > 0 {
		out.MinCount = int(min(n, math.MaxInt32))
	}
	return out
}
