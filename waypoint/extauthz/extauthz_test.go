package extauthz

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/ambit-mesh/ambit/internal/mesh"
	"github.com/ambit-mesh/ambit/internal/policy"
	"github.com/ambit-mesh/ambit/internal/spiffe"
)

// listen opens a port that closes with the test.
func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// asker asks what listens at l, and counts the connections.
func asker(t *testing.T, l net.Listener) (*Asker, *atomic.Int32) {
	t.Helper()
	var dialled atomic.Int32
	a := New(Config{Dial: func(ctx context.Context, p *mesh.Provider) (net.Conn, error) {
		dialled.Add(1)
		if p.Host != "authz.example" || p.Port != 9000 {
			return nil, errors.New("another provider")
		}
		var d net.Dialer
		return d.DialContext(ctx, "tcp", l.Addr().String())
	}})
	t.Cleanup(func() { a.Close() })
	return a, &dialled
}

// question is a POST with a body.
func question() *Question {
	return &Question{
		ID: "r1", Time: time.Unix(1, 0), Source: netip.MustParseAddrPort("10.1.1.9:4000"), Destination: netip.MustParseAddrPort("10.96.0.1:80"),
		SourceID: spiffe.ID{TrustDomain: "td", Namespace: "shop", ServiceAccount: "client"},
		Method:   "POST", Host: "web.shop", Path: "/a%2Fb", Query: "c=d", Proto: "HTTP/2.0", Size: 9, Body: []byte("hel"), Partial: true,
		Header: http.Header{"X-User": {"a", "b"}, "X-Other": {"o"}, "Authorization": {"Basic x"}, "Content-Length": {"9"}, "Transfer-Encoding": {"chunked"}},
	}
}

// service is an authorizer over gRPC.
type service struct {
	auth.UnimplementedAuthorizationServer
	asked  *auth.CheckRequest
	answer func(context.Context) (*auth.CheckResponse, error)
}

func (s *service) Check(ctx context.Context, q *auth.CheckRequest) (*auth.CheckResponse, error) {
	s.asked = q
	return s.answer(ctx)
}

func serveGRPC(t *testing.T, answer func(context.Context) (*auth.CheckResponse, error)) (net.Listener, *service) {
	t.Helper()
	l, s := listen(t), &service{answer: answer}
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, s)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := g.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { g.Stop(); <-stopped })
	return l, s
}

func serveHTTP(t *testing.T, h http.HandlerFunc) net.Listener {
	t.Helper()
	l, s := listen(t), &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() { s.Close(); <-stopped })
	return l
}

func provider(grpc bool, change ...func(*mesh.Provider)) *mesh.Provider {
	p := &mesh.Provider{Name: "authz", GRPC: grpc, Host: "authz.example", Port: 9000, Timeout: 5 * time.Second}
	for _, f := range change {
		f(p)
	}
	return p
}

func option(name, value string, change ...func(*core.HeaderValueOption)) *core.HeaderValueOption {
	o := &core.HeaderValueOption{Header: &core.HeaderValue{Key: name, Value: value}}
	for _, f := range change {
		f(o)
	}
	return o
}

func TestAQuestionOverGRPC(t *testing.T) {
	l, s := serveGRPC(t, func(context.Context) (*auth.CheckResponse, error) { return &auth.CheckResponse{}, nil })
	a, dialled := asker(t, l)
	q := question()
	q.Header.Set("X-Bytes", "\xff")
	if answer := a.Ask(t.Context(), provider(true, func(p *mesh.Provider) { p.MaxBody = 3 }), q); !answer.Allow || answer.Err != nil {
		t.Fatalf("OK came out as %+v", answer)
	}
	c := s.asked.GetAttributes()
	h := c.GetRequest().GetHttp()
	got := map[string]any{
		"source": c.GetSource().GetAddress().GetSocketAddress().GetAddress(), "source port": c.GetSource().GetAddress().GetSocketAddress().GetPortValue(),
		"principal": c.GetSource().GetPrincipal(), "destination": c.GetDestination().GetAddress().GetSocketAddress().GetAddress(),
		"time": c.GetRequest().GetTime().AsTime().Unix(), "id": h.GetId(), "method": h.GetMethod(), "path": h.GetPath(), "host": h.GetHost(),
		"protocol": h.GetProtocol(), "size": h.GetSize(), "body": h.GetBody(), "headers": h.GetHeaders(),
	}
	want := map[string]any{
		"source": "10.1.1.9", "source port": uint32(4000), "principal": "spiffe://td/ns/shop/sa/client", "destination": "10.96.0.1",
		"time": int64(1), "id": "r1", "method": "POST", "path": "/a%2Fb?c=d", "host": "web.shop", "protocol": "HTTP/2", "size": int64(9), "body": "hel",
		"headers": map[string]string{
			":method": "POST", ":path": "/a%2Fb?c=d", ":authority": "web.shop", ":scheme": "http", "x-user": "a,b", "x-other": "o", "authorization": "Basic x",
			"content-length": "9", "transfer-encoding": "chunked", "x-envoy-auth-partial-body": "true", "x-bytes": "!",
		},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	a.Ask(t.Context(), provider(true, func(p *mesh.Provider) { p.MaxBody, p.PackAsBytes = 3, true }), q)
	if h := s.asked.GetAttributes().GetRequest().GetHttp(); string(h.GetRawBody()) != "hel" || h.GetBody() != "" {
		t.Errorf("packed as bytes, the body is %q and %q", h.GetRawBody(), h.GetBody())
	}
	a.Ask(t.Context(), provider(true), q)
	if h := s.asked.GetAttributes().GetRequest().GetHttp(); h.GetBody() != "" {
		t.Errorf("a provider that wants no body got %q", h.GetBody())
	}
	a.Ask(t.Context(), provider(true), &Question{Source: q.Source, SNI: "db.shop"})
	if c := s.asked.GetAttributes(); c.GetRequest().GetHttp() != nil || c.GetTlsSession().GetSni() != "db.shop" {
		t.Errorf("a plain connection is told as %v", c)
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections for four questions, want 1", n)
	}
}

func TestAnswersOverGRPC(t *testing.T) {
	appended := func(o *core.HeaderValueOption) { o.Append = wrapperspb.Bool(true) }
	absent := func(o *core.HeaderValueOption) { o.AppendAction = core.HeaderValueOption_ADD_IF_ABSENT }
	denied := &rpcstatus.Status{Code: int32(codes.PermissionDenied)}
	for _, tt := range []struct {
		sentence string
		answer   *auth.CheckResponse
		err      error
		want     Answer
	}{
		{"OK", &auth.CheckResponse{}, nil, Answer{Allow: true}},
		{"OK with changes", &auth.CheckResponse{HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{
			Headers:         []*core.HeaderValueOption{option("x-set", "1"), option("x-more", "2", appended), option("x-new", "3", absent), option("host", "evil"), option("content-length", "0"), option(":path", "/"), option("x-bad", "a\r\nb")},
			HeadersToRemove: []string{"x-gone", "host"}, ResponseHeadersToAdd: []*core.HeaderValueOption{option("set-cookie", "a=b", appended)},
			QueryParametersToSet: []*core.QueryParameter{{Key: "q", Value: "v"}}, QueryParametersToRemove: []string{"r"},
		}}}, nil, Answer{
			Allow: true,
			Edit: Edit{
				Set: http.Header{"X-Set": {"1"}}, Append: http.Header{"X-More": {"2"}}, Absent: http.Header{"X-New": {"3"}}, Remove: []string{"x-gone"},
				SetQuery: []mesh.Header{{Name: "q", Value: "v"}}, RemoveQuery: []string{"r"},
			},
			Response: Edit{Append: http.Header{"Set-Cookie": {"a=b"}}},
		}},
		{"a denial", &auth.CheckResponse{Status: denied}, nil, Answer{Cause: policy.CauseRefused, Status: 403}},
		{"a denial with words", &auth.CheckResponse{Status: denied, HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: 401}, Headers: []*core.HeaderValueOption{option("www-authenticate", "Basic")}, Body: "go away",
		}}}, nil, Answer{Cause: policy.CauseRefused, Status: 401, Header: http.Header{"Www-Authenticate": {"Basic"}}, Body: []byte("go away")}},
		{"a denial with a status that ends nothing", &auth.CheckResponse{Status: denied, HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: 101},
		}}}, nil, Answer{Cause: policy.CauseRefused, Status: 403}},
		{"OK and a denial at once", &auth.CheckResponse{HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{}}}, nil, Answer{Cause: policy.CauseUnanswered, Status: 403}},
		{"an error in the answer", &auth.CheckResponse{HttpResponse: &auth.CheckResponse_ErrorResponse{ErrorResponse: &auth.DeniedHttpResponse{}}}, nil, Answer{Cause: policy.CauseUnanswered, Status: 403}},
		{"an error", nil, status.Error(codes.Internal, "broken"), Answer{Cause: policy.CauseUnanswered, Status: 403}},
	} {
		l, _ := serveGRPC(t, func(context.Context) (*auth.CheckResponse, error) { return tt.answer, tt.err })
		a, _ := asker(t, l)
		got := a.Ask(t.Context(), provider(true), question())
		if (got.Err != nil) != (tt.want.Cause == policy.CauseUnanswered) {
			t.Errorf("%s: error %v", tt.sentence, got.Err)
		}
		got.Err = nil
		if d := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestAQuestionOverHTTP(t *testing.T) {
	var asked *http.Request
	var body []byte
	l := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r
		body, _ = io.ReadAll(r.Body)
	})
	a, _ := asker(t, l)
	p := provider(false, func(p *mesh.Provider) {
		p.PathPrefix, p.MaxBody = "/check/", 3
		p.IncludeRequestHeaders = []mesh.StringMatch{{Op: mesh.OpPrefix, Value: "x-u"}, {Value: "content-length"}, {Value: "transfer-encoding"}}
		p.AddHeaders = []mesh.Header{{Name: "x-added", Value: "1"}}
	})
	if answer := a.Ask(t.Context(), p, question()); !answer.Allow || answer.Err != nil {
		t.Fatalf("200 came out as %+v", answer)
	}
	want := http.Header{
		"X-User": {"a", "b"}, "Authorization": {"Basic x"}, "X-Added": {"1"}, "X-Envoy-Auth-Partial-Body": {"true"}, "Content-Length": {"3"},
	}
	if d := cmp.Diff(want, asked.Header); d != "" {
		t.Errorf("header (-want +got):\n%s", d)
	}
	if got, want := asked.Method+" "+asked.RequestURI+" "+asked.Host, "POST /check/a%2Fb?c=d web.shop"; got != want || string(body) != "hel" {
		t.Errorf("asked %s with body %q, want %s", got, body, want)
	}
	if answer := a.Ask(t.Context(), p, &Question{}); answer.Allow || answer.Cause != policy.CauseUnanswered {
		t.Errorf("a plain connection came out as %+v, want a denial", answer)
	}
}

func TestAnswersOverHTTP(t *testing.T) {
	upstream := func(p *mesh.Provider) { p.HeadersToUpstream = []mesh.StringMatch{{Value: "X-Who"}} }
	downstream := func(p *mesh.Provider) {
		p.HeadersToDownstreamOnAllow = []mesh.StringMatch{{Value: "set-cookie"}}
		p.HeadersToDownstreamOnDeny = []mesh.StringMatch{{Op: mesh.OpSuffix, Value: "-why"}}
	}
	all := map[string]string{"X-Who": "jane", "Set-Cookie": "a=b", "X-Why": "no", "Location": "/login", "Www-Authenticate": "Basic", "X-Envoy-Auth-Headers-To-Remove": "x-a, host, x-b"}
	for _, tt := range []struct {
		sentence string
		status   int
		change   []func(*mesh.Provider)
		want     Answer
	}{
		{"200 changes nothing by itself", 200, nil, Answer{Allow: true}},
		{"200 gives what is listed", 200, []func(*mesh.Provider){upstream, downstream}, Answer{Allow: true, Edit: Edit{Set: http.Header{"X-Who": {"jane"}}}, Response: Edit{Set: http.Header{"Set-Cookie": {"a=b"}}}}},
		{"another success is a denial", 204, []func(*mesh.Provider){downstream}, Answer{Cause: policy.CauseRefused, Status: 204, Header: http.Header{"X-Why": {"no"}, "Location": {"/login"}, "Www-Authenticate": {"Basic"}}}},
		{"401 gives what is listed and the challenge", 401, []func(*mesh.Provider){downstream}, Answer{Cause: policy.CauseRefused, Status: 401, Header: http.Header{"X-Why": {"no"}, "Location": {"/login"}, "Www-Authenticate": {"Basic"}}, Body: []byte("words")}},
		{"a redirect is for the client", 302, []func(*mesh.Provider){downstream}, Answer{Cause: policy.CauseRefused, Status: 302, Header: http.Header{"X-Why": {"no"}, "Location": {"/login"}, "Www-Authenticate": {"Basic"}}, Body: []byte("words")}},
		{"500 is no answer", 500, nil, Answer{Cause: policy.CauseUnanswered, Status: 403}},
		{"500 is no answer, with a status for that", 500, []func(*mesh.Provider){func(p *mesh.Provider) { p.StatusOnError = 503 }}, Answer{Cause: policy.CauseUnanswered, Status: 503}},
		{"500 from one that fails open", 500, []func(*mesh.Provider){func(p *mesh.Provider) { p.FailOpen = true }}, Answer{Allow: true}},
	} {
		l := serveHTTP(t, func(w http.ResponseWriter, r *http.Request) {
			for k, v := range all {
				w.Header().Set(k, v)
			}
			w.WriteHeader(tt.status)
			if tt.status != 204 {
				io.WriteString(w, "words")
			}
		})
		a, _ := asker(t, l)
		got := a.Ask(t.Context(), provider(false, tt.change...), question())
		if (got.Err != nil) != (tt.status == 500) {
			t.Errorf("%s: error %v", tt.sentence, got.Err)
		}
		if tt.status == 200 {
			if d := cmp.Diff([]string{"x-a", "x-b"}, got.Edit.Remove); d != "" {
				t.Errorf("%s: removed (-want +got):\n%s", tt.sentence, d)
			}
			got.Edit.Remove = nil
		}
		got.Err = nil
		if d := cmp.Diff(tt.want, got, cmpopts.EquateEmpty()); d != "" {
			t.Errorf("%s (-want +got):\n%s", tt.sentence, d)
		}
	}
}

func TestAProviderThatDoesNotAnswer(t *testing.T) {
	nobody := listen(t)
	nobody.Close()
	silent := listen(t) // accepts in the kernel, and says nothing
	for _, grpc := range []bool{true, false} {
		for what, l := range map[string]net.Listener{"gone": nobody, "silent": silent} {
			for _, open := range []bool{false, true} {
				a, _ := asker(t, l)
				p := provider(grpc, func(p *mesh.Provider) { p.FailOpen, p.Timeout = open, 50*time.Millisecond })
				got := a.Ask(t.Context(), p, question())
				if got.Allow != open || got.Err == nil || !strings.HasPrefix(got.Err.Error(), "asking provider authz: ") {
					t.Errorf("gRPC %v, %s, fails open %v: %+v", grpc, what, open, got)
				}
			}
		}
	}
}

func TestAProviderThatComesBackIsFound(t *testing.T) {
	l := listen(t)
	l.Close()
	a, _ := asker(t, l)
	p := provider(true)
	if a.Ask(t.Context(), p, question()).Allow {
		t.Fatal("a provider that is gone allows")
	}
	back, err := net.Listen("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	auth.RegisterAuthorizationServer(g, &service{answer: func(context.Context) (*auth.CheckResponse, error) { return &auth.CheckResponse{}, nil }})
	stopped := make(chan struct{})
	go func() { defer close(stopped); g.Serve(back) }()
	t.Cleanup(func() { g.Stop(); <-stopped })
	for end := time.Now().Add(10 * time.Second); !a.Ask(t.Context(), p, question()).Allow; {
		if time.Now().After(end) {
			t.Fatal("it is not found again within 10 s")
		}
	}
}

func TestAClosedAskerDenies(t *testing.T) {
	for _, grpc := range []bool{true, false} {
		a, _ := asker(t, listen(t))
		a.Close()
		if got := a.Ask(t.Context(), provider(grpc), question()); got.Allow || !errors.Is(got.Err, errClosed) {
			t.Errorf("gRPC %v: %+v", grpc, got)
		}
	}
}

func TestEdits(t *testing.T) {
	e := Edit{
		Remove: []string{"x-gone"}, Set: http.Header{"X-Set": {"new"}}, Append: http.Header{"X-More": {"2"}}, Absent: http.Header{"X-There": {"no"}, "X-New": {"yes"}},
		SetQuery: []mesh.Header{{Name: "a b", Value: "ü"}}, RemoveQuery: []string{"r"},
	}
	h := http.Header{"X-Gone": {"1"}, "X-Set": {"old", "older"}, "X-More": {"1"}, "X-There": {"1"}}
	e.Header(h)
	want := http.Header{"X-Set": {"new"}, "X-More": {"1", "2"}, "X-There": {"1"}, "X-New": {"yes"}}
	if d := cmp.Diff(want, h); d != "" {
		t.Errorf("header (-want +got):\n%s", d)
	}
	if got, want := e.Query("x=%20&r=1&a+b=old&%72=2"), "x=%20&a+b=%C3%BC"; got != want {
		t.Errorf("query %s, want %s", got, want)
	}
	if got := (&Edit{}).Query("x=%20&&"); got != "x=%20&&" {
		t.Errorf("a query that nobody edits became %s", got)
	}
}
