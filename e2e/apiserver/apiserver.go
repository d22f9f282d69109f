// Package apiserver runs etcd and a Kubernetes API server alone: no node, no
// controller, no scheduler, so that what is written there stays as it is.
//
// It owns both processes, their ports on the loopback interface and their
// files below one directory. It refuses to fill the server (e2e/population
// does) and to protect it: whoever has its kubeconfig may do everything. Called
// by bench, and by tests of the control plane; needs no root.
package apiserver

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"
)

// Config says what runs where.
type Config struct {
	// Program is the binary of e2e/cluster/kube. Required.
	Program string
	// Dir is a directory for all files. Required.
	Dir string
}

// Server is a running API server.
type Server struct {
	// Kubeconfig is a file that leads to it, as an administrator.
	Kubeconfig string

	cfg       Config
	processes []*process
}

// readyWithin is how long both may take to start on a busy machine.
const readyWithin = 2 * time.Minute

// Start returns once the server answers. Close must be called then.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	s := &Server{cfg: cfg, Kubeconfig: filepath.Join(cfg.Dir, "kubeconfig")}
	if err := s.start(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) start(ctx context.Context) error {
	ports, err := freePorts(3)
	if err != nil {
		return err
	}
	token, err := s.secrets()
	if err != nil {
		return err
	}
	if err := s.run("etcd", etcdArgs(s.cfg.Dir, ports[0], ports[1])); err != nil {
		return err
	}
	if err := s.run("kube-apiserver", apiserverArgs(s.cfg.Dir, ports[0], ports[2])); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if err := s.answers(ctx, ports[2], token); err != nil {
		return err
	}
	return s.writeKubeconfig(ports[2], token)
}

// secrets writes the key that signs tokens, and the administrator's token.
func (s *Server) secrets() (token string, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return "", err
	}
	var random [16]byte
	rand.Read(random[:]) // never fails
	token = hex.EncodeToString(random[:])
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return token, errors.Join(
		os.WriteFile(filepath.Join(s.cfg.Dir, "sa.key"), text, 0o600),
		os.WriteFile(filepath.Join(s.cfg.Dir, "tokens.csv"), []byte(token+",admin,admin,system:masters\n"), 0o600),
	)
}

func etcdArgs(dir string, client, peer int) []string {
	at := func(port int) string { return fmt.Sprintf("http://127.0.0.1:%d", port) }
	return []string{
		"etcd", "--name=alone", "--data-dir=" + filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls=" + at(client), "--advertise-client-urls=" + at(client),
		"--listen-peer-urls=" + at(peer), "--initial-advertise-peer-urls=" + at(peer), "--initial-cluster=alone=" + at(peer),
	}
}

func apiserverArgs(dir string, etcd, port int) []string {
	key := filepath.Join(dir, "sa.key")
	return []string{
		"kube-apiserver", fmt.Sprintf("--etcd-servers=http://127.0.0.1:%d", etcd),
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", port), "--advertise-address=127.0.0.1",
		"--endpoint-reconciler-type=none", // it would refuse the loopback address
		"--cert-dir=" + filepath.Join(dir, "certs"),
		"--token-auth-file=" + filepath.Join(dir, "tokens.csv"), "--authorization-mode=AlwaysAllow",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + key, "--service-account-signing-key-file=" + key,
		"--service-cluster-ip-range=10.96.0.0/12",
		// Nobody makes the accounts that pods would need.
		"--disable-admission-plugins=ServiceAccount",
		"--shutdown-delay-duration=0s",
	}
}

// Close ends both processes, the API server first, and waits for them.
func (s *Server) Close() {
	for _, p := range slices.Backward(s.processes) {
		p.stop()
	}
}

// process is a program with its log in a file.
type process struct {
	name string
	cmd  *exec.Cmd
	log  *os.File
	done <-chan struct{}
}

func (s *Server) run(name string, args []string) error {
	log, err := os.Create(filepath.Join(s.cfg.Dir, name+".log"))
	if err != nil {
		return err
	}
	cmd := exec.Command(s.cfg.Program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	done, err := StartTied(cmd) // if we crash, it does not stay
	if err != nil {
		log.Close()
		return fmt.Errorf("starting %s: %w", name, err)
	}
	s.processes = append(s.processes, &process{name: name, cmd: cmd, log: log, done: done})
	return nil
}

// stopWithin is how long a process may take to end before it is killed.
const stopWithin = 5 * time.Second

func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(stopWithin):
		p.cmd.Process.Kill()
		<-p.done
	}
	p.log.Close()
}

func freePorts(n int) ([]int, error) {
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close() // after all are found, or one could be found twice
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
