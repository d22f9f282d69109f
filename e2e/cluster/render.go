package cluster

import (
	"bytes"
	"embed"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	texttemplate "text/template"
)

//go:embed assets
var assets embed.FS

// Images that every cluster needs; package e2e/images makes them.
const (
	pauseImage   = "localhost/ambit/pause:dev"
	corednsImage = "localhost/ambit/coredns:dev"
)

// clusterDomain is the DNS domain of every cluster.
const clusterDomain = "cluster.local"

// facts is what the templates in assets may say about one machine.
type facts struct {
	Name        string         // of the machine
	Cgroup      string         // of the machine
	DNS         netip.Addr     // the cluster's DNS service
	Domain      string         // the cluster's DNS domain
	Any         string         // "all addresses"
	AnyHost     string         // the same, as host part of host:port
	PodRanges   string         // of all pods, comma separated
	OwnPods     []netip.Prefix // of the pods of this machine
	Defaults    []string       // default routes of pods
	Snapshotter string         // of containerd
	PauseImage  string
	Image       string // of CoreDNS
	Replicas    int    // of CoreDNS
}

func (p plan) facts(name string) facts {
	f := facts{
		Name: name, Cgroup: p.cgroupOf(name), DNS: p.dnsAddr(), Domain: clusterDomain, Any: "0.0.0.0", AnyHost: "0.0.0.0",
		PodRanges: joined(p.pods()), PauseImage: pauseImage, Image: corednsImage,
	}
	if p.family == IPv6 {
		f.Any, f.AnyHost = "::", "[::]"
	}
	if p.family.has4() {
		f.Defaults = append(f.Defaults, "0.0.0.0/0")
	}
	if p.family.has6() {
		f.Defaults = append(f.Defaults, "::/0")
	}
	return f
}

// render fills one template of assets.
func render(name string, data any) (string, error) {
	t, err := texttemplate.New(name).Option("missingkey=error").ParseFS(assets, "assets/"+name)
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, name, data); err != nil {
		return "", fmt.Errorf("render %s: %w", name, err)
	}
	return out.String(), nil
}

// kubeconfig issues a certificate to a user and wraps it.
func kubeconfig(p plan, ca *pki, user subject) (string, error) {
	cert, key, err := ca.issue(user)
	if err != nil {
		return "", err
	}
	b64 := base64.StdEncoding.EncodeToString
	return render("kubeconfig.yaml", map[string]string{
		"Cluster": "ambit-" + p.name, "User": user.name, "Server": p.server(),
		"CA": b64(ca.bundle()), "Cert": b64(cert), "Key": b64(key),
	})
}

// joined prints values with commas between them, as command lines want lists.
func joined[T fmt.Stringer](values []T) string {
	words := make([]string, len(values))
	for i, v := range values {
		words[i] = v.String()
	}
	return strings.Join(words, ",")
}
