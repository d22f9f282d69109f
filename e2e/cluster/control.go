package cluster

import (
	"fmt"
	"path/filepath"

	"github.com/ambit-mesh/ambit/e2e/cluster/machine"
)

// Where certificates and kubeconfigs are, inside every machine.
const (
	kubernetesDir = "/etc/kubernetes"
	pkiDir        = kubernetesDir + "/pki"
)

// issuer is who signs service-account tokens.
const issuer = "https://kubernetes.default.svc." + clusterDomain

// controlSpec describes the machine of the control plane.
func controlSpec(s *state, dir string, ca *pki) (machine.Spec, error) {
	p := s.plan()
	files, err := controlFiles(p, ca)
	if err != nil {
		return machine.Spec{}, err
	}
	return machine.Spec{
		Name: controlName, Netns: netnsPath(p.netns(controlName)), Cgroup: p.cgroupOf(controlName),
		Disk: diskOf(dir, controlName), Bin: s.Bin, Files: files,
		Services: []machine.Service{
			{Name: "etcd", Program: "kube", Args: etcdArgs()},
			{Name: "kube-apiserver", Program: "kube", Args: apiserverArgs(p), Await: "tcp:127.0.0.1:2379"},
			{Name: "kube-controller-manager", Program: "kube", Args: controllerManagerArgs(p), Await: "tcp:" + p.apiAddr()},
			{Name: "kube-scheduler", Program: "kube", Args: schedulerArgs(p), Await: "tcp:" + p.apiAddr()},
		},
	}, nil
}

func controlFiles(p plan, ca *pki) (map[string]machine.File, error) {
	files := map[string]machine.File{}
	caKey, err := ca.privateKey()
	if err != nil {
		return nil, err
	}
	signer, err := ca.signingKey()
	if err != nil {
		return nil, err
	}
	files[pkiDir+"/ca.crt"] = machine.File{Content: string(ca.bundle())}
	files[pkiDir+"/ca.key"] = machine.File{Content: string(caKey), Mode: 0o600}
	files[pkiDir+"/sa.key"] = machine.File{Content: string(signer), Mode: 0o600}
	hosts := []string{
		"localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + clusterDomain, p.serviceAddr(1).String(),
	}
	for _, a := range p.onLAN(controlNumber) {
		hosts = append(hosts, a.Addr().String())
	}
	for name, who := range map[string]subject{
		"apiserver":      {name: "kube-apiserver", hosts: hosts},
		"kubelet-client": {name: "kube-apiserver-kubelet-client", group: "system:masters"},
		"front-proxy":    {name: "front-proxy-client"},
	} {
		if err := addCertificate(files, ca, name, who); err != nil {
			return nil, err
		}
	}
	for name, user := range map[string]subject{
		"controller-manager": {name: "system:kube-controller-manager"},
		"scheduler":          {name: "system:kube-scheduler"},
	} {
		if err := addKubeconfig(files, p, ca, name, user); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func addCertificate(files map[string]machine.File, ca *pki, name string, who subject) error {
	cert, key, err := ca.issue(who)
	if err != nil {
		return err
	}
	files[filepath.Join(pkiDir, name+".crt")] = machine.File{Content: string(cert)}
	files[filepath.Join(pkiDir, name+".key")] = machine.File{Content: string(key), Mode: 0o600}
	return nil
}

func addKubeconfig(files map[string]machine.File, p plan, ca *pki, name string, user subject) error {
	content, err := kubeconfig(p, ca, user)
	if err != nil {
		return err
	}
	files[filepath.Join(kubernetesDir, name+".kubeconfig")] = machine.File{Content: content, Mode: 0o600}
	return nil
}

func etcdArgs() []string {
	return []string{
		"etcd", "--name=control", "--data-dir=/var/lib/etcd", "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379",
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=control=http://127.0.0.1:2380", "--log-level=warn",
	}
}

func apiserverArgs(p plan) []string {
	return []string{
		"kube-apiserver",
		"--advertise-address=" + p.control().String(),
		"--bind-address=" + p.facts("").Any,
		"--secure-port=6443",
		"--etcd-servers=http://127.0.0.1:2379",
		"--allow-privileged=true",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		// Webhooks of the mesh are reached by endpoint: no kube-proxy runs beside the API server.
		"--enable-aggregator-routing=true",
		"--client-ca-file=" + pkiDir + "/ca.crt",
		"--tls-cert-file=" + pkiDir + "/apiserver.crt",
		"--tls-private-key-file=" + pkiDir + "/apiserver.key",
		"--kubelet-certificate-authority=" + pkiDir + "/ca.crt",
		"--kubelet-client-certificate=" + pkiDir + "/kubelet-client.crt",
		"--kubelet-client-key=" + pkiDir + "/kubelet-client.key",
		// Nobody resolves the names of the nodes.
		"--kubelet-preferred-address-types=InternalIP",
		"--proxy-client-cert-file=" + pkiDir + "/front-proxy.crt",
		"--proxy-client-key-file=" + pkiDir + "/front-proxy.key",
		"--requestheader-client-ca-file=" + pkiDir + "/ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--service-account-issuer=" + issuer,
		"--service-account-key-file=" + pkiDir + "/sa.key",
		"--service-account-signing-key-file=" + pkiDir + "/sa.key",
		"--service-cluster-ip-range=" + joined(p.services()),
		// A drain of open watches at shutdown helps no test.
		"--shutdown-delay-duration=0s",
	}
}

func controllerManagerArgs(p plan) []string {
	return []string{
		"kube-controller-manager",
		"--bind-address=" + p.facts("").Any,
		"--kubeconfig=" + kubernetesDir + "/controller-manager.kubeconfig",
		"--authentication-kubeconfig=" + kubernetesDir + "/controller-manager.kubeconfig",
		"--authorization-kubeconfig=" + kubernetesDir + "/controller-manager.kubeconfig",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--root-ca-file=" + pkiDir + "/ca.crt",
		"--service-account-private-key-file=" + pkiDir + "/sa.key",
		"--cluster-signing-cert-file=" + pkiDir + "/ca.crt",
		"--cluster-signing-key-file=" + pkiDir + "/ca.key",
		"--cluster-cidr=" + joined(p.pods()),
		"--service-cluster-ip-range=" + joined(p.services()),
		// The plan gives every node its range, before there is a cluster to ask.
		"--allocate-node-cidrs=false",
	}
}

func schedulerArgs(p plan) []string {
	return []string{
		"kube-scheduler",
		"--bind-address=" + p.facts("").Any,
		"--kubeconfig=" + kubernetesDir + "/scheduler.kubeconfig",
		"--authentication-kubeconfig=" + kubernetesDir + "/scheduler.kubeconfig",
		"--authorization-kubeconfig=" + kubernetesDir + "/scheduler.kubeconfig",
		"--leader-elect=false",
	}
}

func (p plan) apiAddr() string { return fmt.Sprintf("%s:6443", bracketed(p.control())) }
