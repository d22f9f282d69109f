package plugin_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"
	"github.com/google/go-cmp/cmp"

	"github.com/ambit-mesh/ambit/cni/event"
	"github.com/ambit-mesh/ambit/cni/plugin"
)

// TestMain lets the test binary be the plugin, as the runtime runs it.
func TestMain(m *testing.M) {
	if os.Getenv("CNI_COMMAND") != "" {
		skel.PluginMainFuncs(plugin.Funcs(), version.All, "test")
		return
	}
	os.Exit(m.Run())
}

// agent plays the node agent, with one answer for everybody.
func agent(t *testing.T, status int, text string) (socket string, asked chan map[string]any) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	asked = make(chan map[string]any, 10)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			body = map[string]any{"broken": err.Error()}
		}
		body["path"] = r.URL.Path
		asked <- body
		w.WriteHeader(status)
		fmt.Fprint(w, text)
	})}
	done := make(chan struct{})
	go func() { server.Serve(l); close(done) }()
	t.Cleanup(func() { server.Close(); <-done })
	return socket, asked
}

const prevResult = `{"cniVersion":"1.1.0","interfaces":[{"name":"veth1"},{"name":"eth0","sandbox":"/netns/x"}],` +
	`"ips":[{"interface":1,"address":"10.1.2.3/24","gateway":"10.1.2.1"},{"interface":0,"address":"10.1.2.1/32"}]}`

// run runs the plugin and gives its output.
func run(t *testing.T, command, socket, namespace, extra string) (out map[string]any, ok bool) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=c1", "CNI_NETNS=/netns/x", "CNI_IFNAME=eth0", "CNI_PATH=/none",
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=" + namespace + ";K8S_POD_NAME=front;K8S_POD_UID=u1;K8S_POD_INFRA_CONTAINER_ID=c1",
	}
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"ambit-cni","agentSocket":%q%s}`, socket, extra)
	cmd.Stdin = strings.NewReader(conf)
	stdout, err := cmd.Output()
	if len(stdout) > 0 {
		if err := json.Unmarshal(stdout, &out); err != nil {
			t.Fatalf("output %q: %v", stdout, err)
		}
	}
	return out, err == nil
}

func TestAddAsksTheAgentAndPassesTheResultOn(t *testing.T) {
	socket, asked := agent(t, http.StatusOK, "")
	out, ok := run(t, "ADD", socket, "shop", `,"prevResult":`+prevResult)
	if !ok {
		t.Fatalf("refused: %v", out)
	}
	var want map[string]any
	if err := json.Unmarshal([]byte(prevResult), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, out); diff != "" {
		t.Errorf("result changed (-want +got):\n%s", diff)
	}
	request := map[string]any{
		"path": event.AddPath, "Netns": "/netns/x", "PodName": "front", "PodNamespace": "shop", "PodUID": "u1", "ContainerID": "c1",
		"IPs": []any{map[string]any{"Address": "10.1.2.3/24", "Gateway": "10.1.2.1"}},
	}
	if diff := cmp.Diff(request, <-asked); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}

func TestAddFailsClosed(t *testing.T) {
	refusing, _ := agent(t, http.StatusInternalServerError, "no ztunnel is connected\n")
	absent := filepath.Join(t.TempDir(), "absent")
	for _, c := range []struct {
		what, socket, extra, wantMsg string
	}{
		{"the agent refuses", refusing, `,"prevResult":` + prevResult, "pod shop/front waits: ambit cni agent: no ztunnel is connected"},
		{"the agent is away", absent, `,"prevResult":` + prevResult, "pod shop/front waits: asking the ambit cni agent: ambit cni agent is not running on this node"},
		{"no plugin before", refusing, "", "ambit-cni must be the last of a chain of plugins"},
	} {
		out, ok := run(t, "ADD", c.socket, "shop", c.extra)
		if ok || !strings.HasPrefix(fmt.Sprint(out["msg"]), c.wantMsg) {
			t.Errorf("%s: ok %v, output %v, want message %q", c.what, ok, out, c.wantMsg)
		}
	}
}

func TestWhoDoesNotWait(t *testing.T) {
	absent := filepath.Join(t.TempDir(), "absent")
	for _, c := range []struct{ what, command, namespace, extra string }{
		{"kube-system by default", "ADD", "kube-system", `,"prevResult":` + prevResult},
		{"the mesh's own namespace by default", "ADD", "istio-system", `,"prevResult":` + prevResult},
		{"a namespace of the configuration", "ADD", "mine", `,"excludeNamespaces":["mine"],"prevResult":` + prevResult},
		{"a pod that goes", "DEL", "shop", ""},
		{"CHECK", "CHECK", "shop", `,"prevResult":` + prevResult},
		{"STATUS: a node is ready without the agent, or the agent could not start", "STATUS", "shop", ""},
		{"GC", "GC", "shop", ""},
	} {
		if out, ok := run(t, c.command, absent, c.namespace, c.extra); !ok {
			t.Errorf("%s: refused: %v", c.what, out)
		}
	}
}

func TestDelTellsTheAgent(t *testing.T) {
	socket, asked := agent(t, http.StatusInternalServerError, "whatever")
	if out, ok := run(t, "DEL", socket, "shop", ""); !ok {
		t.Fatalf("refused: %v", out)
	}
	want := map[string]any{"path": event.DelPath, "ContainerID": "c1", "PodName": "front", "PodNamespace": "shop"}
	if diff := cmp.Diff(want, <-asked); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
}
