//go:build e2e

package suite

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/e2e/stage"
)

// These are the resources of upstream's task pages, with the same fields and
// names of our own, and the outcome that is documented there or, where it says
// so, ours.

// tasks is a namespace behind a waypoint: clients a and b, a server in two
// versions, the services web, web-v1 and web-v2.
type tasks struct {
	*Scene
	web string // the service's host
}

func (sc *Scene) tasks(ctx context.Context) (*tasks, error) {
	ts := &tasks{sc, "web." + sc.NS}
	if err := sc.Namespace(ctx, true); err != nil {
		return nil, err
	}
	v := func(version string) map[string]string { return map[string]string{"version": version} }
	if err := sc.Start(ctx,
		Pod{Name: "web-v1", Account: "web", Node: 1, Labels: v("v1")}, Pod{Name: "web-v2", Account: "web", Node: 2, Labels: v("v2")},
		Pod{Name: "a", Node: 1}, Pod{Name: "b", Node: 2},
	); err != nil {
		return nil, err
	}
	only := func(version string) func(*corev1.Service) {
		return func(s *corev1.Service) { s.Spec.Selector["version"] = version }
	}
	if err := errors.Join(sc.Service(ctx, "web", "web"), sc.Service(ctx, "web-v1", "web", only("v1")), sc.Service(ctx, "web-v2", "web", only("v2"))); err != nil {
		return nil, err
	}
	if err := sc.waypoint(ctx, sc.NS, "waypoint", ""); err != nil {
		return nil, err
	}
	if err := sc.Label(ctx, sc.NS, "istio.io/use-waypoint", "waypoint"); err != nil {
		return nil, err
	}
	return ts, Soon(ctx, func(ctx context.Context) error { return ts.passes(ctx, "a", "http://"+ts.web+"/") })
}

// waypoint makes one, with more lines of its listener, and waits until it is
// ready.
func (sc *Scene) waypoint(ctx context.Context, namespace, name, labels string, listener ...string) error {
	doc := fmt.Sprintf("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: %s, namespace: %s, labels: {%s}}\nspec:\n  gatewayClassName: istio-waypoint\n  listeners:\n  - name: mesh\n    port: 15008\n    protocol: HBONE\n%s",
		name, namespace, labels, strings.Join(listener, ""))
	if err := sc.Apply(ctx, doc); err != nil {
		return err
	}
	return stage.Within(ctx, 90*time.Second, func(ctx context.Context) error {
		pods, err := sc.Pods(ctx, namespace, "gateway.networking.k8s.io/gateway-name="+name)
		if err == nil && (len(pods) == 0 || !stage.Ready(&pods[0])) {
			err = fmt.Errorf("waypoint %s/%s is not ready", namespace, name)
		}
		return err
	})
}

// get makes one request and gives what the server saw.
func (ts *tasks) get(ctx context.Context, pod string, args ...string) (seen struct {
	Hostname, Path, Host string
	Headers              map[string][]string
}, err error) {
	s, err := ts.Echo(ctx, pod, append([]string{"get", "--timeout", "5s"}, args...)...)
	if err == nil {
		err = AllOK(s)
	}
	if err != nil {
		return seen, fmt.Errorf("%s: get %s: %w", pod, strings.Join(args, " "), err)
	}
	b, err := json.Marshal(s.Last)
	if err != nil {
		return seen, err
	}
	return seen, json.Unmarshal(b, &seen)
}

// passes is an error unless a request is answered and has been through a
// waypoint, which names it.
func (ts *tasks) passes(ctx context.Context, pod string, args ...string) error {
	seen, err := ts.get(ctx, pod, args...)
	if err == nil && len(seen.Headers["X-Request-Id"]) != 1 {
		err = fmt.Errorf("%s: get %s was answered without a waypoint", pod, strings.Join(args, " "))
	}
	return err
}

// direct is an error unless a request is answered and no waypoint was in between.
func (ts *tasks) direct(ctx context.Context, pod string, args ...string) error {
	seen, err := ts.get(ctx, pod, args...)
	if err == nil && len(seen.Headers["X-Request-Id"]) != 0 {
		err = fmt.Errorf("%s: get %s went through a waypoint", pod, strings.Join(args, " "))
	}
	return err
}

// answered is an error unless every one of count requests has a status.
func (ts *tasks) answered(ctx context.Context, status int, pod string, args ...string) error {
	return ts.Works(ctx, pod, append([]string{"get", "--timeout", "5s", "--status", fmt.Sprint(status)}, args...)...)
}

// task is one resource and its outcome.
type task struct {
	name    string
	objects string
	outcome func(context.Context) error
}

// all goes through tasks one after the other, each alone.
func (ts *tasks) all(ctx context.Context, list []task) error {
	for _, k := range list {
		if err := ts.Apply(ctx, k.objects); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if err := Soon(ctx, k.outcome); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if err := ts.Delete(ctx, k.objects); err != nil {
			return fmt.Errorf("%s: %w", k.name, err)
		}
		if err := Soon(ctx, func(ctx context.Context) error { return ts.passes(ctx, "a", "http://"+ts.web+"/") }); err != nil {
			return fmt.Errorf("after %s: %w", k.name, err)
		}
	}
	return nil
}

// guard is an AuthorizationPolicy for the service web.
func (ts *tasks) guard(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: web}]\n%s", name, ts.NS, spec)
}

func (ts *tasks) route(name, rules string) string {
	return fmt.Sprintf("---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: %s, namespace: %s}\nspec:\n  parentRefs: [{group: \"\", kind: Service, name: web, port: 80}]\n  rules:\n%s", name, ts.NS, rules)
}

func (ts *tasks) url(path string) string { return "http://" + ts.web + path }

func TestTasksOfAuthorization(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		podIP, _, err := sc.IPs(ctx, "web-v1")
		if err != nil {
			return err
		}
		pod := url(podIP, httpPort)
		waypoint := Principal(ts.NS, "waypoint")
		return ts.all(ctx, []task{
			{"waypoint-only ALLOW: pods take nothing that did not pass the waypoint",
				fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: waypoint-only, namespace: %s}\nspec:\n  selector: {matchLabels: {app: web}}\n  action: ALLOW\n  rules: [{from: [{source: {principals: [%s]}}]}]\n", ts.NS, waypoint),
				func(ctx context.Context) error {
					return errors.Join(ts.passes(ctx, "a", ts.url("/")), ts.passes(ctx, "b", ts.url("/")), ts.Fails(ctx, "a", "get", "--timeout", "3s", pod))
				}},
			{"targetRefs Service with GET only",
				ts.guard("get-only", "  action: ALLOW\n  rules: [{to: [{operation: {methods: [GET]}}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.passes(ctx, "a", ts.url("/")),
						ts.answered(ctx, 403, "a", "--method", "POST", "--body", "x", ts.url("/")), ts.answered(ctx, 403, "b", "--method", "DELETE", ts.url("/")),
						// Ours: a policy for a service closes the way around its waypoint.
						ts.Fails(ctx, "a", "get", "--timeout", "3s", pod))
				}},
			{"one account may not DELETE",
				ts.guard("a-keeps", "  action: DENY\n  rules: [{from: [{source: {principals: ["+Principal(ts.NS, "a")+"]}}], to: [{operation: {methods: [DELETE]}}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.answered(ctx, 403, "a", "--method", "DELETE", ts.url("/")), ts.answered(ctx, 200, "b", "--method", "DELETE", ts.url("/")), ts.passes(ctx, "a", ts.url("/")))
				}},
			{"allow-nothing for everything behind the waypoint",
				fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: allow-nothing, namespace: %s}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]\n", ts.NS),
				func(ctx context.Context) error { return ts.answered(ctx, 403, "a", "--count", "3", ts.url("/")) }},
			{"DENY by path and header",
				ts.guard("no-admin", "  action: DENY\n  rules: [{to: [{operation: {paths: [/admin*]}}], when: [{key: 'request.headers[x-token]', notValues: [admin]}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.answered(ctx, 403, "a", ts.url("/admin/users")), ts.answered(ctx, 403, "a", "-H", "x-token: guest", ts.url("/admin/users")),
						ts.answered(ctx, 200, "a", "-H", "x-token: admin", ts.url("/admin/users")), ts.passes(ctx, "a", ts.url("/users")))
				}},
			{"TCP ports, with an HTTP field added: the DENY is enforced without it, the ALLOW rule is left out",
				ts.guard("no-tcp", "  action: DENY\n  rules: [{to: [{operation: {ports: ['90'], methods: [GET]}}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.Fails(ctx, "a", "tcp", "--timeout", "3s", address(ts.web, 90)), ts.passes(ctx, "a", ts.url("/")))
				}},
			{"namespace deny-all at L4 is for the waypoint too",
				fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: deny-all, namespace: %s}\nspec: {}\n", ts.NS),
				func(ctx context.Context) error { return ts.Fails(ctx, "a", "get", "--timeout", "3s", ts.url("/")) }},
		})
	})
}

func TestTasksOfRequestAuthentication(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		issuer, err := newIssuer()
		if err != nil {
			return err
		}
		alice, err1 := issuer.token(map[string]any{"sub": "alice", "groups": []string{"staff"}})
		bob, err2 := issuer.token(map[string]any{"sub": "bob"})
		if err := errors.Join(err1, err2); err != nil {
			return err
		}
		as := func(token, path string) []string {
			return []string{"-H", "Authorization: Bearer " + token, ts.url(path)}
		}
		verify := fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: jwt, namespace: %s}\nspec:\n  targetRefs: [{group: \"\", kind: Service, name: web}]\n  jwtRules: [{issuer: 'test@ambit', jwks: '%s'}]\n", ts.NS, issuer.keys)
		return ts.all(ctx, []task{
			{"a token is verified if there is one", verify, func(ctx context.Context) error {
				return errors.Join(ts.passes(ctx, "a", ts.url("/")), ts.answered(ctx, 200, "a", as(alice, "/")...), ts.answered(ctx, 401, "a", as(alice+"x", "/")...))
			}},
			{"a token is required: DENY notRequestPrincipals",
				verify + ts.guard("required", "  action: DENY\n  rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.answered(ctx, 403, "a", ts.url("/")), ts.answered(ctx, 200, "a", as(bob, "/")...))
				}},
			{"a token by its groups claim",
				verify + ts.guard("staff", "  action: ALLOW\n  rules: [{from: [{source: {requestPrincipals: ['test@ambit/*']}}], when: [{key: 'request.auth.claims[groups]', values: [staff]}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.answered(ctx, 200, "a", as(alice, "/")...), ts.answered(ctx, 403, "a", as(bob, "/")...), ts.answered(ctx, 403, "a", ts.url("/")))
				}},
			{"a token by path",
				verify + ts.guard("by-path", "  action: DENY\n  rules: [{from: [{source: {notRequestPrincipals: ['*']}}], to: [{operation: {paths: [/private*]}}]}]\n"),
				func(ctx context.Context) error {
					return errors.Join(ts.answered(ctx, 403, "a", ts.url("/private")), ts.answered(ctx, 200, "a", as(bob, "/private")...), ts.passes(ctx, "a", ts.url("/")))
				}},
		})
	})
}

// issuer makes tokens of its own.
type issuer struct {
	signer jose.Signer
	keys   string // JWKS
}

func newIssuer() (*issuer, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	public := jose.JSONWebKey{Key: key.Public(), KeyID: "k1", Algorithm: string(jose.ES256), Use: "sig"}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{public}})
	if err != nil {
		return nil, err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, nil)
	return &issuer{signer, string(set)}, err
}

func (i *issuer) token(claims map[string]any) (string, error) {
	claims["iss"], claims["exp"] = "test@ambit", time.Now().Add(time.Hour).Unix()
	return jwt.Signed(i.signer).Claims(claims).Serialize()
}

func TestTasksOfRouting(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		from := func(version string, args ...string) func(context.Context) error {
			return func(ctx context.Context) error {
				s, err := ts.Echo(ctx, "a", append([]string{"get", "--count", "5", "--timeout", "5s"}, args...)...)
				if err == nil {
					err = AllOK(s)
				}
				if err == nil && s.Answered["web-"+version] != 5 {
					err = fmt.Errorf("answers came from %v, want web-%s", s.Answered, version)
				}
				return err
			}
		}
		return ts.all(ctx, []task{
			{"90/10", ts.route("split", "  - backendRefs: [{name: web-v1, port: 80, weight: 90}, {name: web-v2, port: 80, weight: 10}]\n"), func(ctx context.Context) error {
				const n, share = 400, 0.1
				s, err := ts.Echo(ctx, "a", "get", "--count", fmt.Sprint(n), ts.url("/"))
				if err == nil {
					err = AllOK(s)
				}
				if got := float64(s.Answered["web-v2"]); err == nil && math.Abs(got-n*share) > 5*math.Sqrt(n*share*(1-share)) {
					err = fmt.Errorf("%v of %d answers came from v2", got, n)
				}
				return err
			}},
			{"by the end-user header", ts.route("by-user", "  - matches: [{headers: [{name: end-user, value: jason}]}]\n    backendRefs: [{name: web-v2, port: 80}]\n  - backendRefs: [{name: web-v1, port: 80}]\n"), func(ctx context.Context) error {
				return errors.Join(from("v2", "-H", "end-user: jason", ts.url("/"))(ctx), from("v1", ts.url("/"))(ctx))
			}},
			{"request timeout", ts.route("timeout", "  - timeouts: {request: 500ms}\n    backendRefs: [{name: web, port: 80}]\n"), func(ctx context.Context) error {
				return errors.Join(ts.answered(ctx, 504, "a", ts.url("/?delay=3s")), ts.passes(ctx, "a", ts.url("/")))
			}},
			{"mirror: what is mirrored answers nobody", ts.route("mirror", "  - filters: [{type: RequestMirror, requestMirror: {backendRef: {name: web-v2, port: 80}}}]\n    backendRefs: [{name: web-v1, port: 80}]\n"),
				from("v1", ts.url("/"))},
			{"redirect", ts.route("redirect", "  - matches: [{path: {type: Exact, value: /old}}]\n    filters: [{type: RequestRedirect, requestRedirect: {path: {type: ReplaceFullPath, replaceFullPath: /new}, statusCode: 301}}]\n  - backendRefs: [{name: web, port: 80}]\n"), func(ctx context.Context) error {
				s, err := ts.Echo(ctx, "a", "get", "--status", "301", ts.url("/old?q=1"))
				if err == nil {
					err = AllOK(s)
				}
				if at := s.Header["Location"]; err == nil && (len(at) != 1 || at[0] != ts.url("/new?q=1")) {
					err = fmt.Errorf("redirected to %v", at)
				}
				return err
			}},
			{"rewrite", ts.route("rewrite", "  - matches: [{path: {type: PathPrefix, value: /v1}}]\n    filters: [{type: URLRewrite, urlRewrite: {hostname: other.example, path: {type: ReplacePrefixMatch, replacePrefixMatch: /api}}}]\n    backendRefs: [{name: web, port: 80}]\n"), func(ctx context.Context) error {
				seen, err := ts.get(ctx, "a", ts.url("/v1/books"))
				if err == nil && (seen.Path != "/api/books" || seen.Host != "other.example") {
					err = fmt.Errorf("the server was asked for %s at %s", seen.Path, seen.Host)
				}
				return errors.Join(err, ts.answered(ctx, 404, "a", ts.url("/v2")))
			}},
		})
	})
}

func TestTasksOfTraffic(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		rule := func(policy string) string {
			return fmt.Sprintf("---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: %s}\nspec:\n  host: web\n  trafficPolicy:\n%s", ts.NS, policy)
		}
		return ts.all(ctx, []task{
			{"circuit breaker with 1 connection", rule("    connectionPool: {tcp: {maxConnections: 1}, http: {http1MaxPendingRequests: 1, maxRequestsPerConnection: 1}}\n"), func(ctx context.Context) error {
				s, err := ts.Echo(ctx, "a", "load", "--rate", "50", "--duration", "2s", ts.url("/?delay=200ms"))
				if err != nil {
					return err
				}
				for reason := range s.Failures {
					if strings.Contains(reason, "503") && s.OK > 0 {
						return nil
					}
				}
				return fmt.Errorf("%d requests were answered, others: %v", s.OK, s.Failures)
			}},
			{"consistent hash by header", rule("    loadBalancer: {consistentHash: {httpHeaderName: x-user}}\n"), func(ctx context.Context) error {
				hosts := map[string]bool{}
				for user := range 12 {
					s, err := ts.Echo(ctx, "a", "get", "--count", "8", "-H", fmt.Sprintf("x-user: user-%d", user), ts.url("/"))
					if err == nil {
						err = AllOK(s)
					}
					if err != nil {
						return err
					}
					if len(s.Answered) != 1 {
						return fmt.Errorf("user %d was answered by %v", user, s.Answered)
					}
					for host := range s.Answered {
						hosts[host] = true
					}
				}
				if len(hosts) != 2 {
					return fmt.Errorf("of two servers %v answered all users", hosts)
				}
				return nil
			}},
		})
	})
}

func TestWhatAWaypointIsFor(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		v1, _, err := sc.IPs(ctx, "web-v1")
		if err != nil {
			return err
		}
		pod := url(v1, httpPort)
		if err := ts.direct(ctx, "a", pod); err != nil { // the default is services
			return err
		}
		for _, row := range []struct {
			use          string
			pod, service func(context.Context, string, ...string) error
		}{{"workload", ts.passes, ts.direct}, {"all", ts.passes, ts.passes}} {
			name := "for-" + row.use
			if err := sc.waypoint(ctx, ts.NS, name, "istio.io/waypoint-for: "+row.use); err != nil {
				return err
			}
			if err := errors.Join(sc.LabelPod(ctx, ts.NS, "web-v1", "istio.io/use-waypoint", name), sc.Label(ctx, ts.NS, "istio.io/use-waypoint", name)); err != nil {
				return err
			}
			if err := Soon(ctx, func(ctx context.Context) error {
				return errors.Join(row.pod(ctx, "a", pod), row.service(ctx, "a", ts.url("/")))
			}); err != nil {
				return fmt.Errorf("waypoint-for %s: %w", row.use, err)
			}
		}
		return nil
	})
}

func TestAWaypointIsSharedAcrossNamespaces(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		other, err := sc.Another(ctx, "shared", true)
		if err != nil {
			return err
		}
		use := func(namespace, name string) error {
			return errors.Join(sc.Label(ctx, ts.NS, "istio.io/use-waypoint", name), sc.Label(ctx, ts.NS, "istio.io/use-waypoint-namespace", namespace))
		}
		if err := errors.Join(sc.waypoint(ctx, other, "closed", ""), use(other, "closed")); err != nil {
			return err
		}
		// Upstream would let this pass by the waypoint; here it is refused.
		if err := Soon(ctx, func(ctx context.Context) error { return ts.Fails(ctx, "a", "get", "--timeout", "15s", ts.url("/")) }); err != nil {
			return fmt.Errorf("a waypoint that does not admit the namespace: %w", err)
		}
		if err := errors.Join(sc.waypoint(ctx, other, "open", "", "    allowedRoutes: {namespaces: {from: All}}\n"), use(other, "open")); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error { return ts.passes(ctx, "a", ts.url("/")) })
	})
}

func TestAServiceEntryIsReachedThroughAnEgressWaypoint(t *testing.T) {
	t.Parallel()
	Hold(t, mesh, func(ctx context.Context, sc *Scene) error {
		ts, err := sc.tasks(ctx)
		if err != nil {
			return err
		}
		outside, err := sc.Another(ctx, "outside", false)
		if err != nil {
			return err
		}
		if err := sc.Start(ctx, Pod{Name: "api", Namespace: outside}); err != nil {
			return err
		}
		pod, err := sc.Pod(ctx, outside, "api")
		if err != nil {
			return err
		}
		const vip = "http://240.240.7.7/"
		entry := fmt.Sprintf("apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: api, namespace: %s}\nspec:\n  hosts: [api.example.com]\n  addresses: [240.240.7.7]\n  location: MESH_EXTERNAL\n  resolution: STATIC\n  ports: [{number: 80, name: http, protocol: HTTP, targetPort: %d}]\n  endpoints: [{address: %s}]\n", ts.NS, httpPort, pod.Status.PodIP)
		if err := sc.Apply(ctx, entry); err != nil {
			return err
		}
		if err := Soon(ctx, func(ctx context.Context) error { return ts.passes(ctx, "a", "-H", "Host: api.example.com", vip) }); err != nil {
			return err
		}
		egress := fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: egress, namespace: %s}\nspec:\n  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: waypoint}]\n  action: DENY\n  rules: [{from: [{source: {principals: [%s]}}], to: [{operation: {hosts: [api.example.com]}}]}]\n", ts.NS, Principal(ts.NS, "b"))
		if err := sc.Apply(ctx, egress); err != nil {
			return err
		}
		return Soon(ctx, func(ctx context.Context) error {
			return errors.Join(ts.answered(ctx, 403, "b", "-H", "Host: api.example.com", vip), ts.passes(ctx, "a", "-H", "Host: api.example.com", vip))
		})
	})
}
