// Command kubeserver runs the real kube-apiserver for tests, with an etcd in the same process and RBAC on. Nothing else of a
// cluster runs: no kubelet, no scheduler, no controllers. Tests write the status of Jobs and Pods as those would, through the
// same subresources.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"flag"
	"fmt"
	"log"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/kubernetes/cmd/kube-apiserver/app"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:6443", "address to serve the API on")
	data := flag.String("data", "kube-data", "folder of etcd's data, the certificate and the keys of service accounts")
	tokens := flag.String("tokens", "", "file of logins: token,user,uid,\"groups\"")
	flag.Parse()
	host, port, err := net.SplitHostPort(*listen)
	check(err, "listen")

	started := etcd(filepath.Join(*data, "etcd"))
	defer started.Close()
	key := signingKey(filepath.Join(*data, "service-accounts.key"))

	command := app.NewAPIServerCommand()
	command.SetArgs([]string{
		"--etcd-servers=http://" + started.Clients[0].Addr().String(),
		"--bind-address=" + host,
		"--secure-port=" + port,
		// A cluster of one, on loopback, where no Pod ever runs.
		"--endpoint-reconciler-type=none",
		"--service-cluster-ip-range=10.0.0.0/24",
		"--cert-dir=" + filepath.Join(*data, "certs"),
		"--token-auth-file=" + *tokens,
		"--authorization-mode=RBAC",
		"--anonymous-auth=false",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + key,
		"--service-account-signing-key-file=" + key,
		// It waits for a controller that is not here.
		"--disable-admission-plugins=ServiceAccount",
		"--v=0",
	})
	if err := command.Execute(); err != nil {
		os.Exit(1)
	}
}

// etcd on free ports of loopback; the data of a test need not survive the machine.
func etcd(dir string) *embed.Etcd {
	config := embed.NewConfig()
	config.Dir, config.LogLevel, config.UnsafeNoFsync = dir, "error", true
	free := url.URL{Scheme: "http", Host: "127.0.0.1:0"}
	config.ListenClientUrls, config.ListenPeerUrls = []url.URL{free}, []url.URL{free}
	started, err := embed.StartEtcd(config)
	check(err, "etcd")
	select {
	case <-started.Server.ReadyNotify():
	case <-time.After(time.Minute):
		check(fmt.Errorf("not ready after a minute"), "etcd")
	}
	return started
}

// signingKey makes the key that signs tokens of service accounts, once.
func signingKey(path string) string {
	if _, err := os.Stat(path); err == nil {
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(err, "key")
	der, err := x509.MarshalECPrivateKey(key)
	check(err, "key")
	block := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	check(os.WriteFile(path, block, 0o600), "key")
	return path
}

func check(err error, what string) {
	if err != nil {
		log.Fatalf("%s: %v", what, err)
	}
}
